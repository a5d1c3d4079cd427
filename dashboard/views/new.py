"""A new run: model, problems, reward and method, each with the config's own sentences; then one request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from dashboard import formats, forms, notices, previews, probing, problems, sending, service
from dashboard.forms import Setting, Variant

JsonObject = dict[str, Any]
_COLUMNS = 3
_LEFT_OPEN = "not set"


def page() -> None:
    """Draws the form from top to bottom; the request it makes is shown before it is sent."""
    st.title("New run")
    try:
        with service.api() as client:
            models = [model["id"] for model in client.list_models()["data"]]
            uploaded = list(client.all_files())
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error)
        return
    if not models:
        st.info(
            "The platform has no base model yet. Put one, in Hugging Face layout, into the folder `models` of its home."
        )
        return
    with st.container(border=True):
        st.subheader("Model")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            model = st.selectbox("Base model", models, key="model", persist_state="session", width=320)
            name = st.text_input(
                "Name",
                key="name",
                placeholder="letters, digits, - and _",
                max_chars=64,
                persist_state="session",
                width=320,
            )
            seed = st.number_input(
                "Seed",
                0,
                2**31 - 1,
                None,
                placeholder="chosen by the service",
                key="run_seed",
                persist_state="session",
                width=220,
            )
    with st.container(border=True):
        st.subheader("Problems")
        files = problems.choose(uploaded)
    grader, config = _reward(), _method()
    body = forms.job_body(model=model, files=files, grader=grader, config=config, name=name, seed=seed)
    _submit(body, is_ready=files["training_file"] is not None)


# --- reward and method --------------------------------------------------------------------------------------------


def _reward() -> JsonObject:
    with st.container(border=True):
        st.subheader("Reward")
        known = forms.graders()
        st.session_state.setdefault("grader", "numeric")
        chosen = known[st.selectbox("Grader", list(known), key="grader", persist_state="session", width=320)]
        st.caption(formats.plain(chosen.help))
        return {"type": chosen.name, **forms.said(_fields(chosen, "grader", {}), chosen)}


def _method() -> JsonObject:
    with st.container(border=True):
        st.subheader("Method")
        with st.container(horizontal=True):
            named = st.selectbox(
                "Begin with",
                forms.presets(),
                index=None,
                key="preset",
                bind="query-params",
                placeholder="the defaults",
                width=240,
                help="Named settings fill the fields below; change what you like.",
            )
            preset = forms.preset(named)
            known = forms.algorithms()
            usual = preset.get("algorithm", {}).get("kind", "stapo")
            prefix = f"{named}_" if named else ""
            kind = st.selectbox(
                "Algorithm",
                list(known),
                index=list(known).index(usual),
                key=f"{prefix}algorithm",
                persist_state="session",
                width=240,
            )
        chosen = known[kind]
        st.caption(formats.plain(chosen.help))
        begun = preset.get("algorithm", {}) if kind == usual else {}
        fields = _fields(chosen, f"{prefix}algorithm", begun)
        config: JsonObject = {"algorithm": {"kind": chosen.name, **forms.changed(fields, chosen)}}
        for name, section in forms.sections().items():
            with st.expander(name.capitalize() or "Length and precision", expanded=name in ("", "batch")):
                said = _section(section, prefix, preset.get(name) if name else preset)
            if said is not None and not name:
                config |= said
            elif said is not None:
                config[name] = said
        return config


def _section(section: Variant, prefix: str, begun: JsonObject | None) -> JsonObject | None:
    """What was changed in a group of settings; None where it is to stay as it is, or out."""
    if section.help:
        st.caption(formats.plain(section.help))
    if section.is_optional and not st.toggle(
        "Use", value=bool(begun), key=f"{prefix}use_{section.name}", persist_state="session"
    ):
        return None
    said = forms.changed(_fields(section, f"{prefix}train", begun or {}), section)
    return said if said or section.is_optional else None


def _fields(variant: Variant, key: str, begun: JsonObject) -> JsonObject:
    """One widget for each setting, in columns; `begun` are the values to begin with in place of the defaults."""
    columns = st.columns(_COLUMNS)
    values = {}
    for place, setting in enumerate(variant.settings):
        with columns[place % _COLUMNS]:
            shown = replace(setting, default=begun.get(setting.name, setting.default))
            values[setting.name] = _field(shown, f"{key}_{variant.name}_{setting.name}")
    return values


def _field(setting: Setting, key: str) -> Any:
    common: JsonObject = {"key": key, "help": formats.plain(setting.help), "persist_state": "session"}
    if setting.kind == "choice":
        return st.selectbox(_label(setting), setting.choices, index=setting.choices.index(setting.default), **common)
    if setting.kind == "boolean":
        return st.checkbox(_label(setting), value=bool(setting.default), **common)
    if setting.kind == "json":
        return _written(setting, common)
    if setting.kind == "string":
        ask = st.text_area if "\n" in (setting.default or "") else st.text_input
        return ask(_label(setting), value=setting.default or "", **common)
    return _whole(setting, common) if setting.kind == "integer" else _real(setting, common)


def _label(setting: Setting) -> str:
    return f"`{setting.name}`"  # the field's own name, as a job file and the API have it


def _written(setting: Setting, common: JsonObject) -> Any:
    """A list or an object, written as JSON; what is none is sent as it stands, and refused by its field."""
    text = st.text_area(_label(setting), value=forms.written(setting.default), height=130, **common)
    try:
        return forms.parsed(text)
    except ValueError as error:
        st.error(f"`{setting.name}` is not valid JSON: {formats.plain(str(error))}", icon=":material/data_object:")
        return text


def _whole(setting: Setting, common: JsonObject) -> int | None:
    low, high = (None if bound is None else int(bound) for bound in (setting.minimum, setting.maximum))
    value: int | None = setting.default
    return st.number_input(
        _label(setting), value=value, min_value=low, max_value=high, step=1, placeholder=_LEFT_OPEN, **common
    )


def _real(setting: Setting, common: JsonObject) -> float | None:
    low, high = (None if bound is None else float(bound) for bound in (setting.minimum, setting.maximum))
    value = None if setting.default is None else float(setting.default)
    return st.number_input(
        _label(setting),
        value=value,
        min_value=low,
        max_value=high,
        step=forms.step_of(value),
        format="%.6g",
        placeholder=_LEFT_OPEN,
        **common,
    )


# --- submission ---------------------------------------------------------------------------------------------------


def _submit(body: JsonObject, *, is_ready: bool) -> None:
    with st.container(horizontal=True):
        is_sent = st.button(
            "Submit", type="primary", icon=":material/rocket_launch:", disabled=not is_ready, key="submit"
        )
        is_tried = st.button(
            "Dry run",
            icon=":material/science:",
            disabled=not is_ready,
            key="dry_run",
            help="Checks the whole request, resolves every default and says what it will take. Nothing is queued.",
        )
        is_probed = probing.button(is_ready=is_ready)
    if is_sent:
        _create(body)
    if is_tried:
        _try(body)
    if is_probed:
        _probe(body)
    probing.show(body)
    asked, preview = st.session_state.get("preview", (None, None))
    if preview is not None and asked == body:
        previews.plan(preview)
    if not is_ready:
        st.caption("A run needs a file of training problems.")
    with st.expander("The same request elsewhere"):
        shell, python, raw = st.tabs(["curl", "Python", "JSON"])
        shell.code(forms.as_curl(body, service.public_api_url()), language="shell")
        python.code(forms.as_python(body, service.public_api_url()), language="python")
        raw.code(json.dumps(body, indent=2, ensure_ascii=False), language="json")


def _create(body: JsonObject) -> None:
    try:
        with service.api() as client:
            job = sending.once(body, lambda key: client.create_job(body, idempotency_key=key))
    except (ApiUnreachable, ApiError) as error:
        notices.refused(error)
    else:
        st.switch_page("views/run.py", query_params={"run": job["id"]})


def _try(body: JsonObject) -> None:
    try:
        with service.api() as client:
            st.session_state["preview"] = (body, client.preview_job(body))
    except (ApiUnreachable, ApiError) as error:
        notices.refused(error)


def _probe(body: JsonObject) -> None:
    try:
        probing.ask(body)
    except (ApiUnreachable, ApiError) as error:
        notices.refused(error)


page()
