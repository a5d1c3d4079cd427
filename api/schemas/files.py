"""Uploads and base models on the wire."""

from __future__ import annotations

from typing import Literal

from api.schemas.wire import Wire, epoch
from api.store.tables import File


class FileObject(Wire):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    sha256: str
    """SHA-256 of the bytes, in hexadecimal."""

    @classmethod
    def of(cls, row: File) -> FileObject:
        """The wire form of a row."""
        return cls(
            id=row.id,
            bytes=row.bytes,
            created_at=epoch(row.created_at),
            filename=row.filename,
            purpose=row.purpose,
            sha256=row.sha256,
        )


class FileDeleted(Wire):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class ModelObject(Wire):
    """A base model that jobs may name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
