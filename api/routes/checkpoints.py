"""Checkpoints: what a job has made, file by file with digests, or as one archive."""

from __future__ import annotations

import base64
import os
import tarfile
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse, StreamingResponse

from api.deps import After, DatabaseDep, FetcherDep, Limit, OrderDep, ReaderDep, SettingsDep, ViewerDep, admit
from api.errors import NotFound
from api.etags import is_named
from api.schemas import CheckpointObject, ListOf, Problem, model_name
from api.store import artifacts, jobs
from api.store.database import Database
from api.store.keys import Caller
from api.store.tables import Checkpoint, Job

router = APIRouter(prefix="/v1/fine_tuning", tags=["Results"])
CHUNK = 2**20


@router.get("/jobs/{job_id}/checkpoints", summary="List a job's checkpoints")
def list_job_checkpoints(
    job_id: str,
    viewer: ViewerDep,
    database: DatabaseDep,
    after: After = None,
    limit: Limit = 20,
    order: OrderDep = "desc",
) -> ListOf[CheckpointObject]:
    """The job's checkpoints, newest first; each is whole, or it would not be listed."""
    admit(viewer, job_id)
    with database.transaction() as session:
        job = jobs.get_job(session, viewer.tenant, job_id)
        page = artifacts.list_checkpoints(session, job, after=after, limit=limit, order=order)
    return ListOf.of([CheckpointObject.of(row, job) for row in page.rows], has_more=page.has_more)


@router.get("/checkpoints/{checkpoint_id}", summary="Retrieve a checkpoint")
def retrieve_checkpoint(checkpoint_id: str, caller: ReaderDep, database: DatabaseDep) -> CheckpointObject:
    """What a checkpoint holds, with the SHA-256 of every file."""
    with database.transaction() as session:
        row, job = artifacts.get_checkpoint(session, caller.tenant, checkpoint_id)
    return CheckpointObject.of(row, job)


@router.get(
    "/checkpoints/{checkpoint_id}/files/{path:path}",
    summary="Download a file of a checkpoint",
    response_class=FileResponse,
    responses={
        206: {"description": "The range asked for"},
        304: {"description": "Not modified"},
        416: {"model": Problem, "description": "The range lies outside the file"},
    },
)
def download_checkpoint_file(
    checkpoint_id: str,
    path: str,
    viewer: FetcherDep,
    database: DatabaseDep,
    settings: SettingsDep,
    if_none_match: Annotated[str | None, Header(description="Answers 304 when it is the ETag.")] = None,
) -> Response:
    """The bytes of one file, whole or by Range; ETag and Repr-Digest are its SHA-256."""
    row, job = _checkpoint(database, viewer, checkpoint_id)
    entry = artifacts.find_file(row, path)
    etag = f'"{entry["sha256"]}"'
    digest = base64.b64encode(bytes.fromhex(entry["sha256"])).decode()
    headers = {"ETag": etag, "Repr-Digest": f"sha-256=:{digest}:", "Cache-Control": "private, immutable"}
    if is_named(etag, if_none_match):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    source = artifacts.folder_path(settings.artifacts_dir, job.id, row.step) / path
    if not source.is_file():
        raise _replaced()
    return FileResponse(source, media_type="application/octet-stream", filename=Path(path).name, headers=headers)


@router.get(
    "/checkpoints/{checkpoint_id}/archive", summary="Download a checkpoint as one tar", response_class=StreamingResponse
)
def download_checkpoint_archive(
    checkpoint_id: str, viewer: FetcherDep, database: DatabaseDep, settings: SettingsDep
) -> StreamingResponse:
    """All files in one tar, streamed as it is read; the manifest inside holds their digests."""
    row, job = _checkpoint(database, viewer, checkpoint_id)
    folder = artifacts.folder_path(settings.artifacts_dir, job.id, row.step)
    name = f"{model_name(job)}-step-{row.step}".replace(":", "_")
    try:  # what is open is read to its end, even when newer checkpoints replace this one meanwhile
        sources = {f"{name}/{entry['path']}": (folder / entry["path"]).open("rb") for entry in row.files}
    except FileNotFoundError as error:
        raise _replaced() from error
    return StreamingResponse(
        _tar(sources),
        media_type="application/x-tar",
        headers={"Content-Disposition": f'attachment; filename="{name}.tar"'},
    )


def _checkpoint(database: Database, viewer: Caller, checkpoint_id: str) -> tuple[Checkpoint, Job]:
    with database.transaction() as session:
        row, job = artifacts.get_checkpoint(session, viewer.tenant, checkpoint_id)
    admit(viewer, job.id)
    return row, job


def _replaced() -> NotFound:
    return NotFound("This checkpoint has just been replaced by newer ones.", code="checkpoint_not_found")


def _tar(sources: Mapping[str, BinaryIO]) -> Iterator[bytes]:
    """A tar in pieces of at most CHUNK bytes: never more than one of them in memory."""
    for name, source in sources.items():
        with source:
            info = tarfile.TarInfo(name)
            info.size = os.fstat(source.fileno()).st_size
            yield info.tobuf(format=tarfile.PAX_FORMAT)
            while chunk := source.read(CHUNK):
                yield chunk
            yield bytes(-info.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
