"""Kept answers: by version, the least recently used out first, and whole however many threads ask at once."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from api import answers
from api.answers import Answers


@pytest.fixture
def short_turns() -> Iterator[None]:
    """Threads that take turns as often as can be."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_an_answer_is_given_again_until_its_version_is_another() -> None:
    kept = Answers()
    kept.keep("a", 1, b"one")
    assert (kept.find("a", 1), kept.find("a", 2), kept.find("b", 1)) == (b"one", None, None)
    kept.keep("a", 2, b"two")
    assert (kept.find("a", 1), kept.find("a", 2)) == (None, b"two")


def test_the_one_that_was_not_asked_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_BYTES", 24)
    kept = Answers()
    for number in range(8):
        kept.keep(number, 1, b"xxx")
    assert kept.find(0, 1) == b"xxx"
    kept.keep(8, 1, b"xxx")
    assert [number for number in range(9) if kept.find(number, 1)] == [0, 2, 3, 4, 5, 6, 7, 8]


def test_a_body_of_more_than_an_eighth_pushes_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_BYTES", 80)
    kept = Answers()
    kept.keep("small", 1, b"x" * 10)
    kept.keep("large", 1, b"x" * 11)
    kept.keep("huge", 1, b"x" * 1000)
    assert (kept.find("small", 1), kept.find("large", 1), kept.find("huge", 1)) == (b"x" * 10, None, None)
    kept.keep("small", 2, b"x" * 11)  # what it said before is not true any more
    assert kept.find("small", 1) is None


@pytest.mark.usefixtures("short_turns")
def test_many_threads_at_once_find_and_keep_without_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_BYTES", 400)
    kept, seed = Answers(), random.SystemRandom().randrange(10**6)

    def ask(number: int) -> None:
        source = random.Random(seed + number)
        for _ in range(20_000):
            question, size = source.randrange(20), source.randrange(50)
            if kept.find(question, 1) is None or source.random() < 0.5:
                kept.keep(question, 1, b"x" * size)

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(ask, number) for number in range(8)]:
            done.result()
    assert kept._num_bytes == sum(len(body) for _, body in kept._kept.values()) <= 400, f"seed {seed}"
