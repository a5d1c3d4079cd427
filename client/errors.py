"""What can go wrong when we speak to a service: it refused, it could not be reached, or a download is not whole."""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """The root of this room's errors; `str()` is a sentence for a terminal."""


class ApiError(ClientError):
    """The service answered and refused (RFC 9457): a status, a stable code, a sentence and the fields at fault."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        self.status = status
        self.problem = problem
        self.code = str(problem.get("code") or "unknown_error")
        self.message = str(problem.get("detail") or problem.get("title") or f"The service answered {status}.")
        self.param: str | None = problem.get("param")
        self.errors: list[dict[str, Any]] = list(problem.get("errors") or [])
        self.request_id: str | None = problem.get("request_id")
        super().__init__(self.message)

    def __str__(self) -> str:
        lines = [self.message if not self.param else f"{self.message} (field: {self.param})"]
        lines += [
            f"  {error.get('pointer', '')}: {error.get('detail', '')}"
            for error in self.errors
            if error.get("detail") not in (None, self.message)
        ]
        lines.append(f"  [{self.status} {self.code}{f', request {self.request_id}' if self.request_id else ''}]")
        return "\n".join(lines)


class ApiUnreachable(ClientError):
    """Nothing answered at `address`."""

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        super().__init__(f"No answer from {address} ({reason}). Is the platform running? `stapo up` starts it here.")


class DownloadError(ClientError):
    """A file is not what the service said it is, or the folder is taken."""
