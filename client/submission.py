"""A job file (YAML or JSON): the body of the request, with data files named by their path on this machine."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from client.errors import ClientError
from client.http import Client
from client.objects import JobObject

_FILE_FIELDS = ("training_file", "validation_file")
_FILE_ID_PREFIX = "file-"


class _Loader(yaml.SafeLoader):
    """Reads `1e-6` as the number that its writer meant; YAML 1.1 wants a dot in it, or takes it for a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class BadJobFile(ClientError):
    """The job file cannot be read, or names a file that is not there."""


def read_mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file that holds one mapping. Raises BadJobFile."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else _Loader(text).get_single_data()
    except OSError as error:
        raise BadJobFile(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise BadJobFile(f"{path} is not valid: {error}") from error
    if not isinstance(content, dict):
        raise BadJobFile(f"{path} holds no mapping of fields.")
    return content


def submit_job(client: Client, path: Path) -> JobObject:
    """Uploads the data files that the job file names, submits the job and gives it back."""
    return client.create_job(upload_data(client, path, _FILE_FIELDS))


def upload_data(client: Client, path: Path, fields: Sequence[str]) -> dict[str, Any]:
    """The request that a job file holds, with the ids of the files that these of its fields name."""
    body = read_mapping(path)
    data = {field: _find_data(path, field, body[field]) for field in fields if _names_a_path(body.get(field))}
    uploaded = {field: client.upload_file(file)["id"] for field, file in data.items()}
    return body | uploaded


def _names_a_path(value: object) -> bool:
    return isinstance(value, str) and not value.startswith(_FILE_ID_PREFIX)


def _find_data(job_file: Path, field: str, value: str) -> Path:
    """The data file, relative to the job file as its writer saw it."""
    path = job_file.parent / value
    if not path.is_file():
        raise BadJobFile(
            f"{job_file}: {field} is '{value}', and there is no file {path}. "
            f"Give a path relative to the job file, or the id of an uploaded file ({_FILE_ID_PREFIX}…)."
        )
    return path
