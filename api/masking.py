"""Keeps tickets out of the server's log: they stand in addresses, since a browser's stream can send no header."""

from __future__ import annotations

import logging
import re

ACCESS_LOG = "uvicorn.access"
_TICKET = re.compile(r"([?&]ticket=)[^&\s]+")


class TicketFilter(logging.Filter):
    """Writes `ticket=…` in place of every ticket."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        if isinstance(record.args, tuple):
            record.args = tuple(mask_tickets(each) if isinstance(each, str) else each for each in record.args)
        return True


def mask_tickets(text: str) -> str:
    """The text without its tickets."""
    return _TICKET.sub(r"\1…", text)


def install_masking() -> None:
    """Adds the filter to the access log, once per process."""
    log = logging.getLogger(ACCESS_LOG)
    if not any(isinstance(each, TicketFilter) for each in log.filters):
        log.addFilter(TicketFilter())
