"""The form that begins a new run from a checkpoint: what is most often changed as fields, the rest as a patch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import CheckpointObject, JobObject
from dashboard import formats, forms, microscope, sending, service

JsonObject = dict[str, Any]
_FIELDS = (
    ("num_steps", ("num_steps",)),
    ("learning_rate", ("optimizer", "learning_rate")),
    ("tau_p", ("algorithm", "tau_p")),
)


def form(job: JobObject, saved: list[CheckpointObject]) -> None:
    """Draws the form; `saved` are the job's checkpoints, newest first."""
    if not saved:
        return
    st.markdown("**A new run from a checkpoint.** What you do not change is as this run has it.")
    config = microscope.train_config(job)
    with st.form("fork_form", border=False):
        names = {each["id"]: f"Step {each['step_number']:,}{' (final)' if each['final'] else ''}" for each in saved}
        checkpoint = st.selectbox(
            "Checkpoint", list(names), format_func=lambda each: names[each], key="fork_checkpoint"
        )
        name = st.text_input("Name", placeholder=f"{formats.run_name(job)}-fork", max_chars=64, key="fork_name")
        values = {field: _field(field, _value(config, path)) for field, path in _FIELDS if _has(config, path)}
        patch = st.text_area("Other changes to the config, as JSON", "{}", key="fork_patch", height=80)
        if not st.form_submit_button("Fork the run", type="primary", icon=":material/fork_right:", key="fork_now"):
            return
    try:
        changes = merged(changed(config, values), json.loads(patch or "{}"))
    except ValueError:
        st.error("The other changes are not a JSON object.")
        return
    _fork(job["id"], {"checkpoint": checkpoint, "name": name or f"{formats.run_name(job)}-fork", "config": changes})


def changed(config: Mapping[str, Any], values: JsonObject) -> JsonObject:
    """The fields that were given another value, as a patch of the config."""
    patch: JsonObject = {}
    for field, (*groups, last) in _FIELDS:
        if field in values and values[field] != _value(config, (*groups, last)):
            place = patch
            for group in groups:
                place = place.setdefault(group, {})
            place[last] = values[field]
    return patch


def merged(patch: JsonObject, more: Any) -> JsonObject:
    """Two patches as one; the second wins. Raises ValueError when it is no object."""
    if not isinstance(more, dict):
        raise ValueError("not an object")
    whole = dict(patch)
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(whole.get(name), dict)
        whole[name] = merged(whole[name], value) if both else value
    return whole


def _field(name: str, value: Any) -> Any:
    key = f"fork_{name}"
    if isinstance(value, int):
        return st.number_input(f"`{name}`", value=value, min_value=1, step=1, key=key)
    return st.number_input(
        f"`{name}`", value=float(value), min_value=0.0, step=forms.step_of(value), format="%.6g", key=key
    )


def _has(config: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    return isinstance(_value(config, path), int | float)


def _value(config: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = config
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _fork(job_id: str, changes: JsonObject) -> None:
    try:
        with service.api() as client:
            new = sending.once((job_id, changes), lambda key: client.fork_job(job_id, changes, idempotency_key=key))
    except (ApiError, ApiUnreachable) as error:
        st.error(formats.plain(str(error)), icon=":material/block:")
        return
    st.switch_page("views/run.py", query_params={"run": new["id"]})
