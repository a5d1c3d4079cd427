"""Uploads: streamed to disk, checked line by line, and only then a row."""

from __future__ import annotations

import hashlib
import os
import tempfile
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

from fastapi import APIRouter, Form, Query, UploadFile
from fastapi.responses import FileResponse

from api import planning, validation
from api.counting import load_counter
from api.deps import (
    After,
    DatabaseDep,
    DownloaderDep,
    IdempotencyKeyDep,
    KeyFirst,
    Limit,
    OrderDep,
    ReaderDep,
    SettingsDep,
    WriterDep,
)
from api.errors import TooLarge, Unprocessable
from api.pace import slow
from api.schemas import FileDeleted, FileObject, FileValidation, ListOf, Problem
from api.settings import Settings
from api.store import files, usage
from api.store.database import Database
from api.store.idempotency import Once
from api.store.ids import FILE, new_id
from api.store.tables import File
from api.validation import Checks
from stapo_core.data import DataErrors, check_rows
from stapo_core.folders import sync

router = APIRouter(prefix="/v1/files", tags=["Files"], route_class=KeyFirst)
CHUNK = 2**20


@router.post("", summary="Upload a file")
@slow
def create_file(
    file: UploadFile,
    purpose: Annotated[Literal["fine-tune"], Form(description="What the file is for.")],
    caller: WriterDep,
    database: DatabaseDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyKeyDep = None,
) -> FileObject:
    """Takes a file of problems, `{"prompt": ..., ...}` per line; faulty lines are refused by their numbers.

    JSONL may be plain, under gzip or under zstd; a parquet file holds a row per problem. A file may also hold one line
    that names a generator, `{"source": "reasoning_gym", "task": "chain_sum", "config": {"size": 1000, "seed": 1}}`.
    """
    settings.files_dir.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".tmp-", dir=settings.files_dir)
    staging = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as target:
            num_bytes, sha256 = _copy(file.file, target, settings.max_upload_bytes)
        try:
            check_rows(staging, ())
        except DataErrors as refused:
            filename = Path(file.filename or "the file").name
            raise planning.unusable_rows(refused, param="file", filename=filename) from refused
        row = File(
            id=new_id(FILE),
            tenant=caller.tenant,
            filename=Path(file.filename or "upload.jsonl").name,
            purpose=purpose,
            bytes=num_bytes,
            sha256=sha256,
        )
        once = Once.of(caller.tenant, idempotency_key, f"POST /v1/files {row.filename} {purpose} {sha256}")
        return _keep(row, staging, once, database, settings)
    finally:
        staging.unlink(missing_ok=True)


@router.get("", summary="List files")
def list_files(
    caller: ReaderDep, database: DatabaseDep, after: After = None, limit: Limit = 20, order: OrderDep = "desc"
) -> ListOf[FileObject]:
    """Your files, newest first."""
    with database.transaction() as session:
        page = files.list_files(session, caller.tenant, after=after, limit=limit, order=order)
    return ListOf.of([FileObject.of(row) for row in page.rows], has_more=page.has_more)


@router.get("/{file_id}", summary="Retrieve a file")
def retrieve_file(file_id: str, caller: ReaderDep, database: DatabaseDep) -> FileObject:
    """What is known about a file."""
    with database.transaction() as session:
        return FileObject.of(files.get_file(session, caller.tenant, file_id))


@router.get(
    "/{file_id}/content",
    summary="Download a file",
    response_class=FileResponse,
    responses={
        206: {"description": "The range asked for"},
        416: {"model": Problem, "description": "The range lies outside the file"},
    },
)
def retrieve_file_content(
    file_id: str, caller: DownloaderDep, database: DatabaseDep, settings: SettingsDep
) -> FileResponse:
    """The bytes of a file; Range is understood."""
    with database.transaction() as session:
        row = files.get_file(session, caller.tenant, file_id)
    return FileResponse(
        files.find_bytes(settings.files_dir, row),
        media_type="application/jsonl",
        filename=row.filename,
        headers={"ETag": f'"{row.sha256}"'},
    )


@router.get("/{file_id}/validation", summary="Check a file before a job")
@slow
def validate_file(
    file_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    settings: SettingsDep,
    fields: Annotated[
        str | None, Query(max_length=1000, description="Fields each row must hold, separated by commas.")
    ] = None,
    validation_file: Annotated[str | None, Query(description="Another file of yours, to find prompts in both.")] = None,
    model: Annotated[str | None, Query(description="A base model, to count the tokens of the prompts.")] = None,
    max_prompt_tokens: Annotated[
        int | None, Query(ge=1, lt=2**31, description="Refuse longer prompts; needs a model.")
    ] = None,
) -> FileValidation:
    """Every refused row with its reason and line, duplicates, missing answers, overlap, and how long the prompts are.

    The file is read row by row, so its size is no matter; of each reason a hundred rows are listed, and all counted.
    """
    if max_prompt_tokens is not None and model is None:
        raise Unprocessable("max_prompt_tokens is counted in a model's tokens; name the model.", param="model")
    with database.transaction() as session:
        row = files.get_file(session, caller.tenant, file_id)
        if validation_file is not None:
            files.get_file(session, caller.tenant, validation_file, param="validation_file")
    checks = Checks(
        fields=sorted({field.strip() for field in (fields or "").split(",") if field.strip()}),
        against=(validation_file, files.file_path(settings.files_dir, validation_file)) if validation_file else None,
        counter=load_counter(planning.find_model(settings.models_dir, model)) if model else None,
        max_prompt_tokens=max_prompt_tokens,
    )
    path = files.find_bytes(settings.files_dir, row)
    return validation.validate_file(path, row.id, checks, scratch=settings.files_dir)


@router.delete("/{file_id}", summary="Delete a file")
def delete_file(file_id: str, caller: WriterDep, database: DatabaseDep, settings: SettingsDep) -> FileDeleted:
    """Removes a file that belongs to no job."""
    with database.transaction() as session:
        files.delete_file(session, caller.tenant, file_id)
    files.file_path(settings.files_dir, file_id).unlink(missing_ok=True)
    return FileDeleted(id=file_id)


def _copy(source: BinaryIO, target: BinaryIO, max_bytes: int) -> tuple[int, str]:
    """Copies to disk for good; returns the size and the SHA-256 in hexadecimal."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"The file is larger than {max_bytes} bytes, the most this service takes.", param="file")
        digest.update(chunk)
        target.write(chunk)
    target.flush()
    os.fsync(target.fileno())
    return size, digest.hexdigest()


def _keep(row: File, staging: Path, once: Once, database: Database, settings: Settings) -> FileObject:
    """Puts the bytes in their place and then commits the row, so that there is no row without its bytes."""
    place = files.file_path(settings.files_dir, row.id)
    try:
        with database.transaction() as session:
            stored = once.find_answer(session)
            if stored is not None:
                return FileObject.model_validate(stored)
            usage.check_stored_bytes(session, row.tenant, row.bytes, most=settings.max_stored_bytes)
            session.add(row)
            session.flush()
            session.refresh(row)
            answer = FileObject.of(row)
            once.keep_answer(session, HTTPStatus.OK, answer.model_dump(mode="json"))
            staging.rename(place)
            sync(settings.files_dir)
        return answer
    except BaseException:
        if place.exists():
            with database.transaction() as session:  # a commit whose answer was lost on the way may have held
                is_known = files.is_file_known(session, row.id)
            if not is_known:
                place.unlink()
        raise
