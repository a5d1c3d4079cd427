"""A report on a file in words. That the page shows it is tried with the pages."""

from __future__ import annotations

from typing import Any

from dashboard import previews


def report(**found: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "num_rows": 3,
        "num_refused": 0,
        "refused": [],
        "num_duplicates": 0,
        "duplicates": [],
        "overlap": None,
        "fields": {"prompt": 3, "answer": 3},
        "prompt_characters": {"min": 4, "max": 1200},
    }
    return base | found


def test_a_file_without_fault_is_usable() -> None:
    assert previews.report_verdict(report())[0] == "Usable"
    assert previews.report_words(report()) == "3 rows · fields answer 3, prompt 3 · prompts of 4 to 1,200 characters"
    assert previews.report_faults(report()) == {"Line": [], "What": []}


def test_faults_of_every_kind_stand_in_the_order_of_their_lines() -> None:
    refused = [
        {"reason": "not_json", "count": 1, "examples": [{"line": 7, "detail": "no JSON"}]},
        {"reason": "missing_field:answer", "count": 1, "examples": [{"line": 2, "detail": "no\u200b answer"}]},
    ]
    found = report(
        num_refused=2,
        refused=refused,
        num_duplicates=1,
        duplicates=[{"line": 5, "first_line": 1}],
        overlap={"count": 1, "lines": [3]},
    )

    assert previews.report_verdict(found)[0] == "Would be refused"
    assert previews.report_faults(found) == {
        "Line": [2, 3, 5, 7],
        "What": [
            "no⟨U+200B⟩ answer",
            "the prompt stands in the other file too",
            "the prompt of line 1 again",
            "no JSON",
        ],
    }
    assert "2 refused · 1 duplicate prompt ·" in previews.report_words(found)


def test_a_prompt_that_stands_twice_is_a_doubt_and_no_refusal() -> None:
    assert previews.report_verdict(report(num_duplicates=1))[0] == "Usable, with a doubt"
