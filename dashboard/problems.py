"""The problems of a new run in its form: a file that is uploaded now or was before, or problems made on the spot."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import streamlit as st

from client.http import ApiError, ApiUnreachable
from client.objects import FileObject
from dashboard import formats, notices, previews, service
from stapo_core.config.sources import DEFAULT_PROBLEMS, MAX_PROBLEMS, TASKS

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

_PREVIEW_ROWS = 3
_HEAD_BYTES = 4096
_SUFFIXES = ["jsonl", "gz", "zst", "parquet"]
_HELP = 'One {"prompt": …, "answer": …} a line, also under gzip or zstd; or parquet with a row for each problem.'


def choose(uploaded: list[FileObject]) -> dict[str, str | None]:
    """The ids of the files by their fields of the request, None while there is none; reports on them are drawn."""
    left, right = st.columns(2)
    with left:
        training = _file("Training problems", "training", uploaded)
    with right:
        validation = _file("Validation problems (optional)", "validation", uploaded)
    if training is not None:
        with left:
            previews.file_report(training, key="training", against=validation)
    if validation is not None:
        with right:
            previews.file_report(validation, key="validation")
    return {"training_file": training, "validation_file": validation}


def source_row(task: str, *, size: int, seed: int) -> str:
    """The one line of a file that stands for a task's problems."""
    return json.dumps({"source": "reasoning_gym", "task": task, "config": {"size": size, "seed": seed}}) + "\n"


def _file(label: str, key: str, uploaded: list[FileObject]) -> str | None:
    fresh = st.file_uploader(label, type=_SUFFIXES, key=f"{key}_upload", help=_HELP)
    if fresh is not None:
        return _fresh(fresh.file_id, fresh)
    names = {file["id"]: f"{file['filename']} ({formats.size(file['bytes'])})" for file in uploaded}
    chosen: str | None = st.selectbox(
        "or one that was uploaded before",
        list(names),
        index=None,
        format_func=lambda file: names.get(file, file),
        key=f"{key}_file",
        persist_state="session",
    )
    with st.popover("or problems made on the spot", icon=":material/casino:", key=f"{key}_source"):
        _source(key)
    return chosen


def head(file: BinaryIO) -> str:
    """The first lines of a JSONL file, cut to what a page can show; of a file of any size only the start is read."""
    file.seek(0)
    lines = file.read(_HEAD_BYTES).decode("utf-8", "replace").split("\n")[:_PREVIEW_ROWS]
    return formats.visible("\n".join(line[:160].rstrip("\r") for line in lines))


def _fresh(upload_id: str, fresh: UploadedFile) -> str | None:
    """Hands a file to the API, once however often the page reruns, and whether it is taken or refused."""
    known: dict[str, FileObject | ApiError] = st.session_state.setdefault("uploads", {})
    if upload_id not in known:
        try:
            known[upload_id] = _upload(fresh.name, fresh.getvalue())
        except ApiError as error:
            known[upload_id] = error
        except ApiUnreachable as error:
            notices.refused(error)
            return None
    file = known[upload_id]
    if isinstance(file, ApiError):
        notices.refused(file)
        return None
    st.caption(f"{formats.size(file['bytes'])} · sha256 {file['sha256'][:16]}…")
    if fresh.name.endswith(".jsonl"):
        st.code(head(fresh), language=None)
    return str(file["id"])


def _source(key: str) -> None:
    st.markdown("**Problems of reasoning-gym**, made anew from their seed wherever they are read.")
    st.selectbox("Task", TASKS, index=TASKS.index("chain_sum"), key=f"{key}_task")
    st.number_input("Problems", 1, MAX_PROBLEMS, DEFAULT_PROBLEMS, key=f"{key}_size")
    st.number_input("Seed", 0, 2**32 - 1, 0 if key == "training" else 1, key=f"{key}_seed")
    st.button("Use them", type="primary", on_click=_use, args=(key,), key=f"{key}_use")


def _use(key: str) -> None:
    """Uploads the line that stands for the problems, chooses it, and with it the scorer of such tasks."""
    task, size, seed = (st.session_state[f"{key}_{field}"] for field in ("task", "size", "seed"))
    try:
        file = _upload(f"{task}-{seed}.jsonl", source_row(task, size=size, seed=seed).encode())
    except (ApiUnreachable, ApiError) as error:
        notices.refused(error)
        return
    st.session_state[f"{key}_file"] = file["id"]
    st.session_state["grader"] = "reasoning_gym"


def _upload(name: str, content: bytes) -> FileObject:
    """The file as the API has it. Raises ApiError and ApiUnreachable."""
    with tempfile.TemporaryDirectory() as folder, service.api() as client:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        return client.upload_file(path)
