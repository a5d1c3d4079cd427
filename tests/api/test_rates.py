"""The moving window, by hand: what this period has counted, and of the last one the share that still overlaps."""

from __future__ import annotations

import random

import pytest
from limits import parse

from api import rates
from api.errors import TooManyRequests
from api.rates import Rates, Window
from api.settings import Settings


def test_a_limit_is_reached_and_frees_itself_as_the_window_moves() -> None:
    window = Window(parse("4/minute"))
    assert [window.count("a", now=600.0).remaining for _ in range(4)] == [3, 2, 1, 0]
    with pytest.raises(TooManyRequests, match="come back in 45 s") as refused:
        window.count("a", now=630.0)
    assert refused.value.retry_after_s == 45
    with pytest.raises(TooManyRequests):
        window.count("a", now=674.0)  # of the 4 before, 3.07 still count
    assert window.count("a", now=675.0).remaining == 0  # and now 3
    assert window.count("a", now=1000.0).remaining == 3


def test_whoever_waits_as_long_as_told_gets_in_and_two_seconds_earlier_does_not() -> None:
    seed = random.SystemRandom().randrange(10**6)
    source = random.Random(seed)
    for _ in range(200):
        window, now = Window(parse(f"{source.randint(1, 9)}/minute")), float(source.randint(0, 10**6))
        refusal = None
        while refusal is None:
            now += source.choice((0, 1, 5, 30))
            try:
                window.count("a", now)
            except TooManyRequests as error:
                refusal = error.retry_after_s
        assert refusal is not None
        if refusal > 2:  # told in whole seconds, rounded up
            with pytest.raises(TooManyRequests):
                window.count("a", now + refusal - 2)
        assert window.count("a", now + refusal), f"seed {seed}"


def test_names_are_counted_apart_and_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_NAMES", 2)
    window = Window(parse("1/minute"))
    window.count("a", now=0.0)
    window.count("b", now=0.0)
    with pytest.raises(TooManyRequests):
        window.count("a", now=1.0)
    window.count("c", now=200.0)
    assert set(window._counts) == {"c"}


def test_of_too_many_names_the_one_that_was_counted_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_NAMES", 3)
    window = Window(parse("5/minute"))
    for name in ("a", "b", "c", "a", "d", "e"):
        window.count(name, now=0.0)
    assert list(window._counts) == ["a", "d", "e"]


@pytest.mark.parametrize(
    ("first", "other", "is_one"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("testclient", "unknown", False),
    ],
)
def test_refusals_are_counted_per_household(settings: Settings, first: str, other: str, is_one: bool) -> None:
    counted = Rates(settings.model_copy(update={"refused_limit": "1/hour"}))
    counted.count_refusal(first)
    if is_one:
        with pytest.raises(TooManyRequests):
            counted.count_refusal(other)
    else:
        counted.count_refusal(other)
