"""Rings the doorbell: one Celery task name, no payload. The row is the queue, so a lost or doubled ring costs nothing.

A request never waits for the broker: a thread rings, and rings again for whatever still waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery

from api.settings import Settings
from api.store import leases
from api.store.database import Database, Outage

DOORBELL = "stapo.doorbell"
_LOG = logging.getLogger(__name__)


def build_celery(find_broker_url: Callable[[], str], **extra: Any) -> Celery:
    """The Celery application that both sides of the doorbell share: JSON, no results, early acknowledgement.

    The broker's address is asked for when it is first needed, so that importing a Celery module reads no setting.
    """
    app = Celery("stapo", set_as_current=False)
    app.add_defaults(
        lambda: {
            "broker_url": find_broker_url(),
            "broker_connection_timeout": 2.0,
            "broker_transport_options": {"socket_connect_timeout": 2.0, "health_check_interval": 10},
            "task_default_queue": "stapo",
            "task_ignore_result": True,
            "task_acks_late": False,
            "task_serializer": "json",
            "accept_content": ["json"],
            **extra,
        }
    )
    return app


class Dispatcher:
    """Rings when told to, and every `sweep_s` seconds while a job waits."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._celery = build_celery(lambda: settings.broker_url)
        self._sweep_s = settings.sweep_s
        self._rung = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Starts the ringing thread."""
        self._thread.start()

    def ring(self) -> None:
        """Asks for a ring; returns at once."""
        self._rung.set()

    def stop(self) -> None:
        """Ends the ringing thread."""
        self._stopping.set()
        self._rung.set()
        self._thread.join(timeout=5.0)

    def ping(self) -> None:
        """Raises unless the broker answers."""
        with self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2.0)

    def _run(self) -> None:
        while True:
            asked = self._rung.wait(self._sweep_s)
            self._rung.clear()
            if self._stopping.is_set():
                return
            try:
                if asked or self._is_job_waiting():
                    self._celery.send_task(DOORBELL, retry=False)
            except Outage:
                _LOG.warning("the database does not answer; the next sweep tries again")
            except Exception as error:  # a broker has many ways to be away, and workers poll meanwhile
                _LOG.warning("the doorbell cannot be rung (%s); workers find jobs by polling", error)

    def _is_job_waiting(self) -> bool:
        with self._database.transaction() as session:
            return leases.is_job_waiting(session)
