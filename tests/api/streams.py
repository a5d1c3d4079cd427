"""Reads server-sent events as a client would."""

from __future__ import annotations

import json
from typing import Any

import httpx2

from tests.api.conftest import Service


def read_stream(url: str, headers: dict[str, str], *, stop_at: int | None = None) -> list[tuple[str, int | None, Any]]:
    """The events (name, id, data) until the stream ends, or until the id `stop_at` has been seen."""
    told = []
    with httpx2.stream("GET", url, headers=headers, timeout=10.0) as answer:
        assert answer.status_code == 200, answer.read()
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                fields[name] = value
            elif not line and "event" in fields:
                seq = int(fields["id"]) if "id" in fields else None
                told.append((fields["event"], seq, json.loads(fields["data"])))
                fields = {}
                if stop_at is not None and seq == stop_at:
                    return told
    return told


def headers_of(service: Service) -> dict[str, str]:
    return {"Authorization": str(service.client.headers["authorization"])}
