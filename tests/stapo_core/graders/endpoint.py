"""A chat endpoint of our own, over real sockets, that answers as it is told and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "sk-canary-4711"
Handler = BaseHTTPRequestHandler
Answer = Callable[[Handler, int], None]
"""Called with the request's handler and the number of requests before it."""


@dataclass
class Endpoint:
    """Where it is, how it answers, and what came in."""

    url: str
    answer: Answer
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def list_judges(self, folder: Path, **changes: Any) -> Path:
        """Writes the operator's list with this endpoint as `judge`, and its key; returns the list's path."""
        (folder / "key").write_text(KEY + "\n")
        judge = {"base_url": f"{self.url}/v1", "model": "large", "api_key_file": "key", "max_parallel": 2} | changes
        (folder / "judges.json").write_text(json.dumps({"judge": judge}))
        return folder / "judges.json"


@contextmanager
def serve(answer: Answer | None = None) -> Iterator[Endpoint]:
    """Listens on a free port until the end of the block."""

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            body = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                number = len(endpoint.bodies)
                endpoint.bodies.append({"path": self.path} | json.loads(body))
                endpoint.keys.append(self.headers.get("authorization", ""))
            endpoint.answer(self, number)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that are killed in the middle are what it is for."""

    lock = threading.Lock()
    server = Server(("127.0.0.1", 0), Chat)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}", answer or saying('{"result": 1}'))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()


def reply(handler: Handler, status: int, body: bytes, **headers: str) -> None:
    """Writes a whole answer."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def completion(text: str | None, **message: Any) -> bytes:
    """A chat completion whose one choice says this."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text, **message}}
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def saying(text: str | None, **message: Any) -> Answer:
    """Says the same to everybody."""
    return lambda handler, _: reply(handler, 200, completion(text, **message))
