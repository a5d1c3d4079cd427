"""`create_app()`: the only place that wires the web process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from fastapi_standalone_docs import StandaloneDocs

from api.answers import Answers
from api.bodies import check_body, check_query
from api.dispatch import Dispatcher
from api.document import complete_document
from api.grading import GraderDesk
from api.instruments import Instruments, Meter
from api.keyring import Keyring
from api.masking import install_masking
from api.pace import settle
from api.problems import RESPONSES, install_problems
from api.rates import Rates
from api.readiness import Parts
from api.relay import Relay
from api.routes import ALL_ROUTES
from api.settings import Settings, get_settings
from api.spooling import spooling_to
from api.store.database import Database
from api.streams import Streams


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API as an ASGI application; it opens its connections when it starts."""
    settings = settings or get_settings()
    app = FastAPI(
        title="STAPO",
        summary="Reinforcement fine-tuning that stays stable: jobs, live metrics, whole checkpoints.",
        version=version("stapo"),
        lifespan=_lifespan,
        responses=RESPONSES,
        dependencies=[Depends(check_query), Depends(check_body)],
        generate_unique_id_function=_operation_id,
    )
    app.state.settings = settings
    app.state.rates = Rates(settings)
    app.state.keyring = Keyring()
    app.state.answers = Answers()
    app.state.instruments = Instruments()
    app.state.grader_desk = GraderDesk(allows_user_code=settings.allows_user_code)
    install_problems(app, max_upload_bytes=settings.max_upload_bytes)
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    if origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["GET"], allow_headers=["Last-Event-ID"]
        )
    app.add_middleware(Meter, instruments=app.state.instruments)
    for router in ALL_ROUTES:
        app.include_router(router)
    StandaloneDocs(app)  # a page where people type their keys runs no script from a stranger's host
    write_document = app.openapi
    app.openapi = lambda: complete_document(app, write_document())  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    install_masking()
    database = Database(settings.database_url, silent_s=settings.lease_s)
    dispatcher = Dispatcher(database, settings)
    streams = Streams(database, poll_s=settings.stream_poll_s, max_streams=settings.max_streams)
    relay = Relay(settings.broker_url)
    app.state.database, app.state.dispatcher, app.state.streams = database, dispatcher, streams
    app.state.relay, app.state.parts = relay, Parts(database, dispatcher, settings)
    dispatcher.start()
    running = [asyncio.create_task(each.run()) for each in (streams, relay)]
    settle()
    with spooling_to(settings.files_dir):
        yield
    for each in running:
        while not each.done():  # a cancellation that meets a library's own timeout may be lost in it
            each.cancel()
            await asyncio.wait([each], timeout=1.0)
    await asyncio.to_thread(dispatcher.stop)
    database.close()


def _operation_id(route: APIRoute) -> str:
    return route.name
