"""What Celery calls: each is one call into the worker, and signal handlers only set a flag."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery.signals import celeryd_init, worker_init, worker_shutdown, worker_shutting_down

from api.dispatch import DOORBELL
from api.settings import get_settings
from worker.answering import Answerer, WarmModels
from worker.celery_app import app
from worker.reaper import Housekeeper
from worker.runner import Runner


@cache
def get_runner() -> Runner:
    """The runner of this process."""
    return Runner(get_settings())


@cache
def get_housekeeper() -> Housekeeper:
    """The housekeeper of this process."""
    return Housekeeper(get_runner(), get_settings())


@cache
def get_answerer() -> Answerer:
    """What answers prompts in this process."""
    return Answerer(get_runner().database, get_settings(), get_models())


@cache
def get_models() -> WarmModels:
    """The models that this process holds."""
    return WarmModels(most=get_settings().warm_models)


@app.task(name=DOORBELL)
def answer_doorbell() -> None:
    """Runs the best eligible jobs until none waits; the message itself says nothing."""
    get_runner().run_waiting_jobs()


@celeryd_init.connect
def size_pool(conf: Any, **_: Any) -> None:
    """A thread for each slot, unless the command line says otherwise."""
    conf.worker_concurrency = get_settings().worker_slots


@worker_init.connect
def start_housekeeping(**_: Any) -> None:
    """Begins before the broker is reached: work goes on without one."""
    get_housekeeper().start()
    get_answerer().start()


@worker_shutting_down.connect
def start_draining(**_: Any) -> None:
    """Celery has been told to stop: trainers save and leave, and nothing new is claimed."""
    get_runner().is_draining.set()


@worker_shutdown.connect
def finish(**_: Any) -> None:
    """Puts the models away, and waits for the jobs that housekeeping started."""
    get_runner().is_draining.set()
    get_answerer().stop()
    get_models().close()
    get_housekeeper().stop()
