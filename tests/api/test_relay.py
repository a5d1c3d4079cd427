"""The relay goes on behind a message that it cannot read."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from api.relay import Publisher, Relay, plain_url


@pytest.mark.parametrize("damaged", [b"{", b"[]", b"{}", b'{"name": []}'])
def test_a_message_that_cannot_be_read_is_left_out(valkey_url: str, damaged: bytes) -> None:
    async def hear() -> dict[str, object]:
        relay = Relay(valkey_url)
        running = asyncio.create_task(relay.run())
        broker, publisher = redis.Redis.from_url(plain_url(valkey_url)), Publisher(valkey_url)
        with relay.waiting_for("cmpl-1") as queue:
            while not await asyncio.to_thread(broker.publish, relay.channel, damaged):
                await asyncio.sleep(0.02)  # until the relay listens
            await asyncio.to_thread(publisher.publish, relay.channel, {"name": "cmpl-1", "number": 0})
            heard = await asyncio.wait_for(queue.get(), 20.0)
        running.cancel()
        await asyncio.wait([running])
        broker.close()
        publisher.close()
        return heard

    with ThreadPoolExecutor(1) as thread:  # the thread of the tests may be in an event loop already, a browser's
        assert thread.submit(asyncio.run, hear()).result() == {"name": "cmpl-1", "number": 0}
