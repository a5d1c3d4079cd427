"""How often one may ask: a moving window per key, and per address for those without a good key. In memory."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.errors import TooManyRequests
from api.settings import Settings


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
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._per_key = _parse(settings.rate_limit)
        self._per_address = _parse(settings.refused_limit)

    def count_request(self, key_id: str) -> Rate | None:
        """Counts a request of a key. Raises TooManyRequests."""
        return self._count(self._per_key, "key", key_id)

    def count_refusal(self, address: str) -> None:
        """Counts a request without a good key. Raises TooManyRequests; a good key from there still gets in."""
        self._count(self._per_address, "address", address)

    def _count(self, limit: RateLimitItem | None, *who: str) -> Rate | None:
        if limit is None:
            return None
        if not self._limiter.hit(limit, *who):
            raise self._refusal(limit, *who)
        left = self._limiter.get_window_stats(limit, *who)
        return Rate(limit.amount, left.remaining, _seconds_until(left.reset_time))

    def _refusal(self, limit: RateLimitItem, *who: str) -> TooManyRequests:
        wait_s = _seconds_until(self._limiter.get_window_stats(limit, *who).reset_time)
        return TooManyRequests(f"More than {limit}; come back in {wait_s} s.", retry_after_s=wait_s)


def _parse(limit: str) -> RateLimitItem | None:
    return parse(limit) if limit else None


def _seconds_until(moment: float) -> int:
    return max(1, math.ceil(moment - time.time()))
