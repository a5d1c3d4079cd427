"""How states, numbers, ages and names read on a page. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

# What has no look of its own, line break and tab aside; dashboard/static/tokens/words.js has the same list.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]"
)

Color = Literal["blue", "green", "red", "orange", "gray", "violet"]


class StateLook(NamedTuple):
    """A state's word, colour and icon: the word alone says it all, the others help the eye."""

    word: str
    color: Color
    icon: str


STATES: dict[str, StateLook] = {
    "validating_files": StateLook("Validating", "gray", ":material/fact_check:"),
    "queued": StateLook("Queued", "gray", ":material/hourglass_empty:"),
    "starting": StateLook("Starting", "blue", ":material/rocket_launch:"),
    "running": StateLook("Running", "blue", ":material/play_arrow:"),
    "pausing": StateLook("Pausing", "orange", ":material/pause:"),
    "paused": StateLook("Paused", "orange", ":material/pause_circle:"),
    "recovering": StateLook("Recovering", "orange", ":material/healing:"),
    "exporting": StateLook("Exporting", "violet", ":material/package_2:"),
    "cancelling": StateLook("Cancelling", "orange", ":material/stop:"),
    "succeeded": StateLook("Succeeded", "green", ":material/check_circle:"),
    "failed": StateLook("Failed", "red", ":material/error:"),
    "cancelled": StateLook("Cancelled", "gray", ":material/cancel:"),
}
ENDED = frozenset({"succeeded", "failed", "cancelled"})
CAN_PAUSE = frozenset({"queued", "starting", "running", "recovering"})
CAN_CANCEL = frozenset(STATES) - ENDED - {"cancelling"}


def state_look(state: str) -> StateLook:
    """The look of a state; one this page does not know is shown by its own word."""
    return STATES.get(state, StateLook(state.replace("_", " ").capitalize(), "gray", ":material/help:"))


def looks() -> dict[str, dict[str, str]]:
    """The looks of all states as the browser takes them."""
    return {state: {**look._asdict(), "icon": look.icon[10:-1]} for state, look in STATES.items()}


def algorithm_config(job: Mapping[str, Any]) -> dict[str, Any]:
    """The algorithm and its constants in a job of the wire."""
    config = job.get("method", {}).get("reinforcement", {}).get("config") or {}
    return dict(config.get("algorithm") or {})


def algorithm_of(job: Mapping[str, Any]) -> str:
    """The algorithm's name in a job of the wire."""
    return str(algorithm_config(job).get("kind", "stapo"))


def owner(job: Mapping[str, Any]) -> str:
    """Whom the run's metadata names as its owner, else the tenant."""
    return str((job.get("metadata") or {}).get("owner") or job.get("organization_id") or "")


def run_name(job: Mapping[str, Any]) -> str:
    """The name its owner gave the run, else the tail of its id."""
    return str(job.get("name") or job.get("suffix") or job["id"][-8:])


def run_label(job: Mapping[str, Any]) -> str:
    """The run's name with the end of its id, by which it is known where names may stand twice."""
    return f"{run_name(job)} · {job['id'][-6:]}"


def matches(job: Mapping[str, Any], search: str) -> bool:
    """Whether every word of `search` occurs in the run's name, model, algorithm, owner or id."""
    text = " ".join([run_name(job), job["model"], algorithm_of(job), owner(job), job["id"]]).lower()
    return all(word in text for word in search.lower().split())


def progress(job: Mapping[str, Any]) -> float:
    """The share of the steps that are done, 0 to 1."""
    steps = job.get("num_steps") or 0
    return min(1.0, (job.get("step") or 0) / steps) if steps else 0.0


def step_text(job: Mapping[str, Any]) -> str:
    """`64 / 150`, or a dash before the length of the run is known."""
    steps = job.get("num_steps")
    return f"{job.get('step') or 0:,} / {steps:,}" if steps else "–"


def time_left_s(job: Mapping[str, Any], now: float) -> float | None:
    """Seconds until the run is expected to end, None where there is no estimate."""
    finish = job.get("estimated_finish")
    return max(0.0, float(finish) - now) if finish and job["state"] not in ENDED else None


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min`, `2 h 4 min`, `3 d 4 h`; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 and whole % 60 else f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits, whole from a thousand on; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def count(value: float) -> str:
    """A large count in the unit that fits: 950, 12.3k, 4.6M, 1.2G."""
    for unit in ("", "k", "M"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}G"


def size(num_bytes: int) -> str:
    """Bytes in the unit that fits: 900 B, 3.2 MB."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def plain(text: str) -> str:
    """Text from outside as it stands, where a page would read Markdown: every mark of its syntax is escaped."""
    one_line = visible(" ".join(text.split()))
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:@&^=])", r"\\\1", one_line)


def visible(text: str) -> str:
    """Text from outside with every character that cannot be seen named in its place; lines and tabs stay."""
    return _UNSEEN.sub(lambda mark: f"⟨U+{ord(mark[0]):04X}⟩", text)
