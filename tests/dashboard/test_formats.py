from __future__ import annotations

import pytest

from api.lifecycle import TERMINAL, JobState
from dashboard import formats


def test_every_state_of_a_job_has_a_word_of_its_own() -> None:
    assert set(formats.STATES) == set(JobState)
    assert len({look.word for look in formats.STATES.values()}) == len(formats.STATES)
    assert set(TERMINAL) == formats.ENDED


def test_a_state_this_page_does_not_know_is_shown_by_its_own_word() -> None:
    assert formats.state_look("held_back").word == "Held back"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (41.6, "42 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (1800.4, "30 min"),
        (7440, "2 h 4 min"),
        (100_000, "1 d 3 h"),
    ],
)
def test_durations_read_in_at_most_two_units(seconds: float | None, text: str) -> None:
    assert formats.duration(seconds) == text


def test_sizes_take_the_unit_that_fits() -> None:
    assert [formats.size(n) for n in (900, 3_400_000, 16_060_000_000)] == ["900 B", "3.4 MB", "16.1 GB"]


def test_text_from_outside_loses_every_mark_that_a_page_would_read_as_markdown() -> None:
    assert formats.plain("**b** :red[x] <b>\n$x$") == r"\*\*b\*\* \:red\[x\] \<b\> \$x\$"


def test_characters_that_cannot_be_seen_are_named_in_their_place_and_lines_stay() -> None:
    hostile = "a\u202eb\u200b\x1b[1m\U000e0041\u180e\u3164\ufe0f\n\tend"

    assert formats.visible(hostile) == ("a⟨U+202E⟩b⟨U+200B⟩⟨U+001B⟩[1m⟨U+E0041⟩⟨U+180E⟩⟨U+3164⟩⟨U+FE0F⟩\n\tend")
    assert formats.plain("a\u202eb") == r"a⟨U\+202E⟩b"


def test_time_left_needs_an_estimate_and_a_run_that_has_not_ended() -> None:
    job = {"state": "running", "estimated_finish": 1060}

    assert formats.time_left_s(job, now=1000.0) == 60.0
    assert formats.time_left_s(job, now=2000.0) == 0.0
    assert formats.time_left_s(job | {"state": "failed"}, now=1000.0) is None
    assert formats.time_left_s(job | {"estimated_finish": None}, now=1000.0) is None


def test_a_search_finds_runs_by_every_word_of_name_model_algorithm_and_id() -> None:
    job = {"id": "ftjob-ab12", "suffix": "arith", "model": "qwen-small", "method": {}}

    assert formats.matches(job, "ARITH qwen")
    assert formats.matches(job, "stapo ab12")
    assert formats.matches(job, "")
    assert not formats.matches(job, "arith grpo")


def test_a_number_has_three_digits_and_from_a_thousand_on_no_fraction() -> None:
    values = (None, 0.012345, 42.15, 999.4, 1064.6, -12345.6)

    assert [formats.number(value) for value in values] == ["–", "0.0123", "42.1", "999", "1,065", "-12,346"]
