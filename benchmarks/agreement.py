"""How far two results lie apart, and the table that says so. Knows no peer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Agreement:
    """The relative difference between ours and a peer's."""

    what: str
    peer: str
    difference: float
    left_out: str = ""
    """Why this difference is shown but not judged: the two are defined differently. Empty where it is judged."""

    @property
    def holds(self) -> bool:
        """Within the tolerance; what is not a number is not."""
        return self.difference <= TOLERANCE


def relative(ours: Any, theirs: Any) -> float:
    """Norm of the difference over the norm, of tensors or of dicts of them with the same keys."""
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            raise ValueError(f"gradients of different parameters: {sorted(ours.keys() ^ theirs.keys())}")
        ours, theirs = (torch.cat([each[name].flatten() for name in sorted(each)]) for each in (ours, theirs))
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes {tuple(ours.shape)} and {tuple(theirs.shape)} do not compare")
    return float((ours - theirs).detach().norm() / theirs.detach().norm())


def report(found: Sequence[Agreement], console: Console | None = None) -> int:
    """Prints every difference and why some are not judged; 1 when one that is judged exceeds the tolerance."""
    console = console or Console()
    table = Table(title=f"Relative differences in float32, none above {TOLERANCE:g} expected")
    for column in ("what", "against", "difference"):
        table.add_column(column)
    for each in found:
        failed = "" if each.holds else "bold red"
        mark = " (not judged)" if each.left_out else ""
        table.add_row(each.what, each.peer, f"{each.difference:.1e}{mark}", style="dim" if each.left_out else failed)
    console.print(table)
    for reason in dict.fromkeys(each.left_out for each in found if each.left_out):
        whats = "; ".join(each.what for each in found if each.left_out == reason)
        console.print(f"Not judged: {whats}: {reason}", highlight=False)
    return int(any(not each.holds for each in found if not each.left_out))
