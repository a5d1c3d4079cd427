"""What Prometheus reads: requests of this process, and the jobs and workers of the whole platform."""

from __future__ import annotations

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.lifecycle import JobState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Instruments:
    """The figures of one API process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("stapo_http_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "stapo_http_request_seconds",
            "Seconds to the first byte of an answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._jobs = Gauge("stapo_jobs", "Jobs by state.", ("state",), registry=self._registry)
        self._workers = Gauge("stapo_workers", "Workers that gave a sign of life.", registry=self._registry)
        self._slots = Gauge("stapo_worker_slots", "Jobs that they can run at a time.", registry=self._registry)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answered request; `route` is the path as it stands in the document, without ids."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def render(self, *, jobs: Mapping[str, int], workers: int, slots: int) -> bytes:
        """The text that Prometheus reads."""
        for state in JobState:
            self._jobs.labels(state.value).set(jobs.get(state.value, 0))
        self._workers.set(workers)
        self._slots.set(slots)
        return generate_latest(self._registry)


class Meter:
    """Counts every request that passes."""

    def __init__(self, app: ASGIApp, *, instruments: Instruments) -> None:
        self._app = app
        self._instruments = instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def metered(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                seconds = time.perf_counter() - started
                self._instruments.count(scope["method"], route, message["status"], seconds)
            await send(message)

        await self._app(scope, receive, metered)
