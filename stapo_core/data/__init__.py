"""Training rows: read strictly and in bounded memory, split, and put in order.

Knows files and positions; must stay free of torch, numpy and tokenizers, because the API checks uploads with it.
"""

from stapo_core.data.faults import DataError, DataErrors, Fault, Tally
from stapo_core.data.order import Split, hold_out, prompt_digest, share_to_hold_out, take
from stapo_core.data.reading import (
    MAX_LISTED,
    Origin,
    Summary,
    check_rows,
    find_source,
    iter_rows,
    missing_field,
    read_rows,
    scan,
)
from stapo_core.data.rows import MAX_DEPTH, MAX_LINE_BYTES, ROLES, look_up, prompt_text

__all__ = [
    "MAX_DEPTH",
    "MAX_LINE_BYTES",
    "MAX_LISTED",
    "ROLES",
    "DataError",
    "DataErrors",
    "Fault",
    "Origin",
    "Split",
    "Summary",
    "Tally",
    "check_rows",
    "find_source",
    "hold_out",
    "iter_rows",
    "look_up",
    "missing_field",
    "prompt_digest",
    "prompt_text",
    "read_rows",
    "scan",
    "share_to_hold_out",
    "take",
]
