"""A network that can be made bad: a TCP port in front of a Unix socket that holds back, delays or resets.

Knows bytes alone. It runs an event loop in a thread of its own; `mode` may be set from any thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import Literal

Mode = Literal["pass", "hold", "delay", "refuse"]
DELAY_S = 0.2
_TICK_S = 0.02
_LINGER = struct.pack("ii", 1, 0)  # close with a reset


class Proxy:
    """Forwards connections to `target`. In mode `hold` bytes wait, in `refuse` every connection is reset."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.mode: Mode = "pass"
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = listener.getsockname()[1]
        starting = asyncio.start_server(self._accept, sock=listener)
        self._server = self._loop.run_until_complete(starting)
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def reset(self) -> bool:
        """Resets every connection that is open now; false when there was none."""
        return asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result(timeout=5.0)

    def close(self) -> None:
        """Ends all; once more does nothing."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        await self._reset()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _reset(self) -> bool:
        open_now = list(self._writers)
        for writer in open_now:
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            writer.transport.abort()
        return bool(open_now)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A task of our own: one that the server makes of a coroutine is reported as an error when it is cancelled."""
        task = self._loop.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.mode == "refuse":
                return
            inner_reader, inner_writer = await asyncio.open_unix_connection(str(self.target))
            await asyncio.gather(self._pump(reader, inner_writer), self._pump(inner_reader, writer))
        except OSError:
            pass  # the server is away: the caller sees its connection end
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                if self.mode == "delay":
                    await asyncio.sleep(DELAY_S)
                while self.mode == "hold":
                    await asyncio.sleep(_TICK_S)
                if self.mode == "refuse":
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
