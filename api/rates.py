"""How often one may ask: a moving window per key, and per address for those without a good key. In memory.

The window is the usual estimate: what this period has counted, and of the one before the share that still overlaps.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from limits import RateLimitItem, parse

from api.errors import TooManyRequests
from api.settings import Settings

MAX_NAMES = 100_000
"""Beyond it, whoever was counted longest ago is forgotten."""


@dataclass(frozen=True)
class Rate:
    """What is left of a limit, as the RateLimit header fields say it."""

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """The header fields of an answer."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }


class Rates:
    """Counts requests of one API process."""

    def __init__(self, settings: Settings) -> None:
        self._per_key = _window(settings.rate_limit)
        self._per_address = _window(settings.refused_limit)

    def count_request(self, key_id: str) -> Rate | None:
        """Counts a request of a key. Raises TooManyRequests."""
        return self._per_key.count(key_id) if self._per_key else None

    def count_refusal(self, address: str) -> None:
        """Counts a request without a good key. Raises TooManyRequests; a good key from there still gets in."""
        if self._per_address:
            self._per_address.count(_household(address))


class Window:
    """Counts by name over a period that moves with the clock."""

    def __init__(self, limit: RateLimitItem) -> None:
        self._limit = limit
        self._period_s = limit.get_expiry()
        # By name, longest ago first: the period, what it counted, what the one before it did.
        self._counts: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def count(self, name: str, now: float | None = None) -> Rate:
        """Counts one more. Raises TooManyRequests where that is one too many, and does not count it."""
        now = time.time() if now is None else now
        period, elapsed = int(now // self._period_s), now % self._period_s / self._period_s
        known, current, before = self._counts.get(name, (period, 0, 0))
        if known != period:
            current, before = 0, current if known == period - 1 else 0
        used = current + before * (1.0 - elapsed)
        if used + 1 > self._limit.amount + 1e-9:  # whoever comes back on the second is not refused by a rounding
            wait_s = max(1, math.ceil(self._period_s * (self._room_at(current, before) - elapsed)))
            raise TooManyRequests(f"More than {self._limit}; come back in {wait_s} s.", retry_after_s=wait_s)
        self._counts[name] = (period, current + 1, before)
        self._counts.move_to_end(name)
        self._forget(period)
        reset_s = max(1, math.ceil((1.0 - elapsed) * self._period_s))
        return Rate(self._limit.amount, max(0, int(self._limit.amount - used - 1)), reset_s)

    def _forget(self, period: int) -> None:
        """Who has not asked for two periods, and whoever is one too many."""
        while next(iter(self._counts.values()))[0] < period - 1 or len(self._counts) > MAX_NAMES:
            self._counts.popitem(last=False)

    def _room_at(self, current: int, before: int) -> float:
        """When one more fits in if nobody else asks, in periods since this one began."""
        others = self._limit.amount - 1
        if current <= others:  # as soon as enough of the period before has moved out
            return 1.0 - (others - current) / before
        return 2.0 - others / current


def _household(address: str) -> str:
    """An IPv6 address stands for its /64, of which one caller has as many addresses as it likes."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _window(limit: str) -> Window | None:
    return Window(parse(limit)) if limit else None
