"""A new run: model, problems, reward and method, each with the config's own sentences; then one request."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import FileObject
from dashboard import formats, forms, notices, previews, probing, service
from dashboard.forms import Setting, Variant

JsonObject = dict[str, Any]
_PREVIEW_ROWS = 3
_COLUMNS = 3
_ANSWER = "{{item.answer}}"
_LEFT_OPEN = "not set"


def page() -> None:
    """Draws the form from top to bottom; the request it makes is shown before it is sent."""
    st.title("New run")
    try:
        with service.api() as client:
            models = [model["id"] for model in client.list_models()["data"]]
            uploaded = client.list_files()["data"]
    except (ApiUnreachable, ApiError) as error:
        notices.no_answer(error, since=None)
        return
    if not models:
        st.info(
            "The platform has no base model yet. Put one, in Hugging Face layout, into the folder `models` of its home."
        )
        return
    with st.container(border=True):
        st.subheader("Model")
        with st.container(horizontal=True, vertical_alignment="bottom"):
            model = st.selectbox("Base model", models, key="model", width=320)
            name = st.text_input("Name", key="name", placeholder="letters, digits, - and _", max_chars=64, width=320)
    with st.container(border=True):
        st.subheader("Problems")
        left, right = st.columns(2)
        with left:
            training = _file("Training problems", "training", uploaded)
        with right:
            validation = _file("Validation problems (optional)", "validation", uploaded)
        if training is not None:
            with left:
                previews.file_report(training, against=validation)
        if validation is not None:
            with right:
                previews.file_report(validation)
    grader, config = _reward(), _method()
    files = {"training_file": training, "validation_file": validation}
    body = forms.job_body(model=model, files=files, grader=grader, config=config, name=name)
    _submit(body, is_ready=training is not None)


# --- problems -----------------------------------------------------------------------------------------------------


def _file(label: str, key: str, uploaded: list[FileObject]) -> str | None:
    """The id of a file that was uploaded now or before, None while there is none."""
    fresh = st.file_uploader(label, type=["jsonl"], key=f"{key}_upload", help='One {"prompt": …, "answer": …} a line.')
    if fresh is not None:
        return _upload(fresh.file_id, fresh.name, fresh.getvalue())
    names = {file["id"]: f"{file['filename']} ({formats.size(file['bytes'])})" for file in uploaded}
    chosen: str | None = st.selectbox(
        "or one that was uploaded before",
        list(names),
        index=None,
        format_func=lambda file: names.get(file, file),
        key=f"{key}_file",
    )
    return chosen


def _upload(upload_id: str, name: str, content: bytes) -> str | None:
    """Hands a file to the API, once however often the page reruns."""
    known: dict[str, FileObject] = st.session_state.setdefault("uploads", {})
    if upload_id not in known:
        try:
            with tempfile.TemporaryDirectory() as folder, service.api() as client:
                path = Path(folder) / Path(name).name
                path.write_bytes(content)
                known[upload_id] = client.upload_file(path)
        except (ApiUnreachable, ApiError) as error:
            _refused(error)
            return None
    file = known[upload_id]
    st.caption(f"{formats.size(file['bytes'])} · sha256 {file['sha256'][:16]}…")
    st.code(
        "\n".join(line[:160] for line in content.decode("utf-8", "replace").splitlines()[:_PREVIEW_ROWS]), language=None
    )
    return str(file["id"])


# --- reward and method --------------------------------------------------------------------------------------------


def _reward() -> JsonObject:
    with st.container(border=True):
        st.subheader("Reward")
        known = forms.graders()
        chosen = known[st.selectbox("Grader", list(known), index=list(known).index("numeric"), key="grader", width=320)]
        st.caption(formats.plain(chosen.help))
        values = _fields(chosen, "grader", {})
        required = {each.name: values[each.name] for each in chosen.settings if each.default is None or each.choices}
        return {"type": chosen.name, **forms.changed(values, chosen), **required}


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
                "Algorithm", list(known), index=list(known).index(usual), key=f"{prefix}algorithm", width=240
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
    if section.is_optional and not st.toggle("Use", value=bool(begun), key=f"{prefix}use_{section.name}"):
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
    common: JsonObject = {"key": key, "help": formats.plain(setting.help)}
    if setting.kind == "choice":
        return st.selectbox(_label(setting), setting.choices, index=setting.choices.index(setting.default), **common)
    if setting.kind == "boolean":
        return st.checkbox(_label(setting), value=bool(setting.default), **common)
    if setting.kind == "string":
        return st.text_input(_label(setting), value=setting.default or _ANSWER, **common)
    return _whole(setting, common) if setting.kind == "integer" else _real(setting, common)


def _label(setting: Setting) -> str:
    return f"`{setting.name}`"  # the field's own name, as a job file and the API have it


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
        _label(setting), value=value, min_value=low, max_value=high, format="%.6g", placeholder=_LEFT_OPEN, **common
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
            job = client.create_job(body)
    except (ApiUnreachable, ApiError) as error:
        _refused(error)
    else:
        st.switch_page("views/run.py", query_params={"run": job["id"]})


def _try(body: JsonObject) -> None:
    try:
        with service.api() as client:
            st.session_state["preview"] = (body, client.preview_job(body))
    except (ApiUnreachable, ApiError) as error:
        _refused(error)


def _probe(body: JsonObject) -> None:
    try:
        probing.ask(body)
    except (ApiUnreachable, ApiError) as error:
        _refused(error)


def _refused(error: ApiError | ApiUnreachable) -> None:
    """The refusal with every fault by its place in the request."""
    if isinstance(error, ApiUnreachable) or not error.errors:
        notices.no_answer(error, since=None)
        return
    faults = [f"- `{fault.get('pointer', '')}` {formats.plain(fault.get('detail', ''))}" for fault in error.errors]
    st.error("\n".join([formats.plain(error.message), "", *faults]), icon=":material/block:")


page()
