"""What can go wrong when we speak to a service: it refused, it could not be reached, or a download is not whole."""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """The root of this room's errors; `str()` is a sentence for a terminal."""


class ApiError(ClientError):
    """The service answered and refused (RFC 9457): a status, a stable code, a sentence and the fields at fault.

    `retry_after_s` is when the service wants to be asked again, where it says so.
    """

    def __init__(self, status: int, problem: dict[str, Any], *, retry_after_s: float | None = None) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
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
    """Nothing answered at `address`; `is_connected` where somebody took the connection and then was silent."""

    def __init__(self, address: str, reason: str, *, is_connected: bool = False) -> None:
        self.address = address
        self.is_connected = is_connected
        super().__init__(f"No answer from {address} ({reason}). Is the platform running? `stapo up` starts it here.")


class DownloadError(ClientError):
    """A file is not what the service said it is, or the folder is taken."""
