"""Makes load from a plan: `python -m benchmarks.load_generator PLAN.json MEASURED.json` writes down what it measured.

Requests leave at their appointed times whether earlier ones were answered or not, and a latency counts from that time:
a service that stalls cannot hide the requests that it kept from being sent. A process of its own, on asyncio.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import uvloop

PATIENCE_S = 30.0


class Connections:
    """Keep-alive connections: one that is free, or a new one."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(self, request: bytes) -> tuple[int, int]:
        """Sends a request; status and bytes of the answer."""
        reader, writer, head = await self._send(request)
        status, fields = int(head[9:12]), head.lower()
        if b"transfer-encoding: chunked" in fields:
            size = await _read_chunks(reader)
        else:
            place = fields.find(b"content-length: ")
            size = int(fields[place + 16 : fields.index(b"\r\n", place)]) if place >= 0 else 0
            await reader.readexactly(size)
        self._free.append((reader, writer))
        return status, size

    async def _send(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """The head of the answer; a connection that the server had closed while it was idle is replaced, once."""
        while self._free:
            reader, writer = self._free.pop()
            try:
                writer.write(request)
                return reader, writer, await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                writer.close()
                if getattr(error, "partial", b""):
                    raise
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(request)
        return reader, writer, await reader.readuntil(b"\r\n\r\n")


async def _read_chunks(reader: asyncio.StreamReader) -> int:
    size = 0
    while True:
        length = int(await reader.readline(), 16)
        await reader.readexactly(length + 2)
        if not length:
            return size
        size += length


class Load:
    """Open-loop requests and open streams, by a plan."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._connections = Connections(plan["host"], plan["port"])
        self._source = random.Random(plan["seed"])
        self._etags: dict[str, str] = {}
        self.latencies: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        """By kind: when a request was due, and how much later it was answered, in seconds."""
        self.errors: defaultdict[str, int] = defaultdict(int)
        self.num_events = 0
        self.num_open = 0
        self.lags: list[tuple[float, float]] = []
        """When a request was due, and how much later it was sent."""
        self.started = 0.0

    async def run(self) -> None:
        """Opens the streams, waits until they are open, then sends requests for the planned time."""
        watching = [asyncio.create_task(self._watch(path)) for path in self._plan["streams"]]
        while self.num_open < len(watching) and not any(task.done() for task in watching):
            await asyncio.sleep(0.1)
        for phase, seconds in (("warm-up", self._plan["warm_up_s"]), ("load", self._plan["seconds"])):
            sys.stderr.write(f"{phase}\n")
            sys.stderr.flush()
            self.latencies.clear()
            self.lags.clear()
            await self._send(seconds)
        self.errors["streams closed"] += sum(task.done() for task in watching)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    async def _send(self, seconds: float) -> None:
        rate, pending = self._plan["rate"], set()
        self.started = time.monotonic()
        names = list(self._plan["mix"])
        weights = [self._plan["mix"][name]["weight"] for name in names]
        for number in range(int(rate * seconds)):
            due = self.started + number / rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            self.lags.append((due, time.monotonic() - due))
            (name,) = self._source.choices(names, weights)
            task = asyncio.create_task(self._ask(name, due))
            pending.add(task)
            task.add_done_callback(pending.discard)
        await asyncio.gather(*pending)

    async def _ask(self, name: str, due: float) -> None:
        request = self._source.choice(self._plan["mix"][name]["requests"]).encode()
        try:
            status, _ = await asyncio.wait_for(self._connections.request(request), PATIENCE_S)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.errors[f"{name}: {type(error).__name__}"] += 1
            return
        if status >= 400:
            self.errors[f"{name}: {status}"] += 1
        self.latencies[name].append((due, time.monotonic() - due))

    async def _watch(self, path: str) -> None:
        reader, writer = await asyncio.open_connection(self._plan["host"], self._plan["port"], limit=2**20)
        writer.write(head("GET", path, self._plan["key"]).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            self.errors[f"stream: {answer[9:12].decode()}"] += 1
            return
        self.num_open += 1
        try:
            while received := await reader.read(2**16):
                self.num_events += received.count(b"event: metrics")
        finally:
            writer.close()


def head(method: str, path: str, key: str, body: str = "", **fields: str) -> str:
    """A request, as it goes over the wire."""
    named = {"Host": "bench", "Authorization": f"Bearer {key}", **fields}
    if body:
        named |= {"Content-Type": "application/json", "Content-Length": str(len(body.encode()))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n{body}"


def main() -> None:
    """Runs the plan."""
    load = Load(json.loads(Path(sys.argv[1]).read_text()))
    uvloop.run(load.run())
    measured = {
        "started": load.started,
        "latencies": load.latencies,
        "lags": load.lags,
        "errors": {name: count for name, count in load.errors.items() if count},
        "num_events": load.num_events,
    }
    Path(sys.argv[2]).write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
