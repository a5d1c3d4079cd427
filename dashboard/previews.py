"""What a file and a request come to before a run is spent on them: the report on a file, the plan of a dry run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import FileValidation
from dashboard import formats, service

JsonObject = Mapping[str, Any]


def file_report(file_id: str, *, key: str, against: str | None = None) -> None:
    """Rows, refusals, duplicates, overlap with the other file, lengths. A report that cannot be had is no hindrance.

    `key` tells reports on the same file apart.
    """
    try:
        report = _validated(file_id, against)
    except (ApiUnreachable, ApiError) as error:
        st.caption(f"No report on this file: {formats.plain(str(error))}")
        return
    verdict, color, icon = report_verdict(report)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(verdict, icon=icon, color=color)
        st.caption(formats.plain(report_words(report)), width="stretch")
    faults = report_faults(report)
    if faults["Line"]:
        with st.expander(f"{len(faults['Line'])} lines to look at"):
            st.dataframe(
                faults, hide_index=True, height=180, key=f"{key}-faults-{file_id}", alt="Lines of the file to look at"
            )
    lengths = report["prompt_characters"]
    if lengths and len(lengths["histogram"]) > 1:
        st.echarts_chart(
            length_histogram(lengths),
            height=110,
            key=f"{key}-lengths-{file_id}",
            alt="How many prompts have which length",
        )


def plan(preview: JsonObject) -> None:
    """The resolved request and its estimate."""
    estimate = preview["estimate"]
    with st.grid(6, min_column_width=130, gap="small"):
        st.metric("Steps", f"{preview['num_steps']:,}", border=True)
        st.metric("Responses a step", f"{estimate['responses_per_step']:,}", border=True)
        st.metric("Tokens at most", formats.count(estimate["max_response_tokens"]), border=True)
        memory = estimate["memory_bytes"] or {"cpu": None, "gpu": None}
        st.metric("Memory, CPU", _known(memory["cpu"], formats.size), border=True)
        st.metric("Memory, GPU", _known(memory["gpu"], formats.size), border=True)
        st.metric("Work", _known(estimate["flops"], lambda flops: f"{formats.number(flops)} FLOP"), border=True)
    with st.expander("The resolved request: every default and every automatic value"):
        st.json({name: value for name, value in preview.items() if name not in ("object", "estimate")}, expanded=3)


def report_verdict(report: JsonObject) -> tuple[str, formats.Color, str]:
    """A word, a colour and an icon for a report."""
    if report["num_refused"]:
        return "Would be refused", "red", ":material/error:"
    if report["num_duplicates"] or (report["overlap"] and report["overlap"]["count"]):
        return "Usable, with a doubt", "orange", ":material/warning:"
    return "Usable", "green", ":material/check_circle:"


def report_words(report: JsonObject) -> str:
    """`64 rows · 2 duplicate prompts · fields answer 64, prompt 64 · prompts of 4 to 12 characters`."""
    parts = [f"{report['num_rows']:,} rows"]
    if report["num_refused"]:
        parts.append(f"{report['num_refused']:,} refused")
    if report["num_duplicates"]:
        parts.append(f"{report['num_duplicates']:,} duplicate prompt{'s' if report['num_duplicates'] > 1 else ''}")
    if report["overlap"] and report["overlap"]["count"]:
        parts.append(f"{report['overlap']['count']:,} prompts stand in the other file too")
    parts.append("fields " + ", ".join(f"{name} {count:,}" for name, count in sorted(report["fields"].items())))
    lengths = report["prompt_characters"]
    if lengths:
        parts.append(f"prompts of {lengths['min']:,} to {lengths['max']:,} characters")
    return " · ".join(parts)


def report_faults(report: JsonObject) -> dict[str, list[Any]]:
    """Lines and what is the matter with them, by line."""
    found = [(row["line"], row["detail"]) for refusal in report["refused"] for row in refusal["examples"]]
    found += [(row["line"], f"the prompt of line {row['first_line']} again") for row in report["duplicates"]]
    found += [(line, "the prompt stands in the other file too") for line in (report["overlap"] or {}).get("lines", [])]
    found.sort()
    return {"Line": [line for line, _ in found], "What": [formats.visible(what) for _, what in found]}


def length_histogram(lengths: JsonObject) -> JsonObject:
    """The option of an ECharts bar chart."""
    bins = lengths["histogram"]
    return {
        "animation": False,
        "grid": {"left": 8, "right": 8, "top": 6, "bottom": 20},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "category", "data": [f"{each['start']}–{each['stop'] - 1}" for each in bins]},
        "yAxis": {"type": "value", "show": False},
        "series": [
            {"name": "prompts", "type": "bar", "barCategoryGap": "10%", "data": [each["count"] for each in bins]}
        ],
    }


def _known(value: float | None, text: Any) -> str:
    return "–" if value is None else str(text(value))


@st.cache_data(ttl="10m", max_entries=100, show_spinner=False)
def _validated(file_id: str, against: str | None) -> FileValidation:
    with service.api() as client:
        return client.validate_file(file_id, validation_file=against)
