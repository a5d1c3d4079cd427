"""Carries the pieces of an answer from the worker that draws it to the API process that waits, through the broker.

What it carries is numbered and may be lost: the whole answer is a row in the end. So it is bounded everywhere, a
broker that is away costs the stream and not the answer, and nobody ever waits for a slow reader.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import redis
import redis.asyncio
import structlog
from redis.exceptions import RedisError

CONNECT_S = 2.0
PAUSE_S = 3.0
"""After a failure the broker is left alone for so long."""
MAX_WAITING = 1024
"""Messages that wait for one reader; those beyond are lost to it."""
CHANNEL = "stapo.pieces."
_LOG = structlog.get_logger()


class Publisher:
    """The worker's end. It never raises and never waits for long."""

    def __init__(self, broker_url: str) -> None:
        self._redis = redis.Redis.from_url(
            plain_url(broker_url), socket_connect_timeout=CONNECT_S, socket_timeout=CONNECT_S
        )
        self._away_until = 0.0

    def publish(self, channel: str, message: dict[str, Any]) -> None:
        """Sends one message, or drops it while the broker is away."""
        if time.monotonic() < self._away_until:
            return
        try:
            self._redis.publish(channel, orjson.dumps(message))
        except (RedisError, OSError):
            self._away_until = time.monotonic() + PAUSE_S

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()


class Relay:
    """The API's end: one subscription per process, and a short queue for each answer that is waited for."""

    def __init__(self, broker_url: str) -> None:
        self.channel = CHANNEL + secrets.token_hex(8)
        """Where messages for this process go; an ask says so."""
        self._url = plain_url(broker_url)
        self._queues: dict[str, asyncio.Queue[dict[str, Any]]] = {}

    async def run(self) -> None:
        """Hands messages out until cancelled; a broker that is away is only waited for, and no bug ends it either."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE_S)
            except Exception:
                _LOG.exception("relay_failed")
                await asyncio.sleep(PAUSE_S)

    @contextmanager
    def waiting_for(self, name: str) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """What arrives under `name` from now on."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)
        self._queues[name] = queue
        try:
            yield queue
        finally:
            del self._queues[name]

    async def _listen(self) -> None:
        client = redis.asyncio.Redis.from_url(self._url, socket_connect_timeout=CONNECT_S, health_check_interval=15)
        async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(self.channel)
            while True:
                received = await subscription.get_message(timeout=15.0)
                if received is not None:
                    self._hand_out(received["data"])

    def _hand_out(self, text: bytes) -> None:
        try:
            message = orjson.loads(text)
            queue = self._queues.get(message["name"])
        except (ValueError, TypeError, LookupError):
            _LOG.warning("message_cannot_be_read", text=text[:200])
            return
        if queue is not None and not queue.full():
            queue.put_nowait(message)


def plain_url(broker_url: str) -> str:
    """Celery's address of the broker as its own client writes it."""
    return broker_url.replace("redis+socket://", "unix://", 1)
