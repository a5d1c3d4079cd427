"""Uploaded files: the rows, and where their bytes lie."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from api.errors import Conflict, NotFound
from api.store.pages import Cursor, Order, Page, read_page
from api.store.tables import File, Job


def get_file(session: Session, tenant: str, file_id: str, *, param: str | None = None) -> File:
    """Raises NotFound when the tenant has no such file; `param` names the field that asked for it."""
    file = session.scalar(select(File).where(File.tenant == tenant, File.id == file_id))
    if file is None:
        raise _missing(file_id, param)
    return file


def is_file_known(session: Session, file_id: str) -> bool:
    """Whether there is such a row, whoever's it is."""
    return session.scalar(select(File.id).where(File.id == file_id)) is not None


def hold_file(session: Session, tenant: str, file_id: str, *, param: str) -> None:
    """Keeps a file from being deleted until the transaction ends. Raises NotFound when the tenant has no such file."""
    held = select(File.id).where(File.tenant == tenant, File.id == file_id).with_for_update(read=True, key_share=True)
    if session.scalar(held) is None:
        raise _missing(file_id, param)


def list_files(session: Session, tenant: str, *, after: str | None, limit: int, order: Order) -> Page[File]:
    """The tenant's files by age."""
    number = get_file(session, tenant, after, param="after").number if after else None
    return read_page(session, select(File).where(File.tenant == tenant), File.number, Cursor(number, limit, order))


def delete_file(session: Session, tenant: str, file_id: str) -> File:
    """Removes the row; raises Conflict while a job refers to the file, since its record would no longer be whole."""
    file = session.scalar(select(File).where(File.tenant == tenant, File.id == file_id).with_for_update())
    if file is None:
        raise _missing(file_id, None)
    uses = or_(Job.training_file == file_id, Job.validation_file == file_id)
    job_id = session.scalar(select(Job.id).where(uses).order_by(Job.number.desc()).limit(1))
    if job_id is not None:
        raise Conflict(f"The file belongs to the record of job {job_id} and is kept with it.", code="file_in_use")
    session.delete(file)
    return file


def file_path(files_dir: Path, file_id: str) -> Path:
    """Where the bytes of a file lie; `file_id` must come from a row."""
    return files_dir / file_id


def find_bytes(files_dir: Path, file: File) -> Path:
    """Where the bytes of a file lie. Raises NotFound when they have gone since its row was read."""
    path = file_path(files_dir, file.id)
    if not path.is_file():
        raise NotFound(f"{file.filename} has just been deleted.", code="file_not_found")
    return path


def _missing(file_id: str, param: str | None) -> NotFound:
    return NotFound(f"There is no file '{file_id}'; GET /v1/files lists yours.", code="file_not_found", param=param)
