"""The application: routes, guard, errors, and the page."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from xretrieve.app.about_routes import about_routes
from xretrieve.app.errors import install
from xretrieve.app.guard import Guard
from xretrieve.app.search_routes import search_routes
from xretrieve.app.session_routes import session_routes
from xretrieve.app.settings import Settings
from xretrieve.app.state import State
from xretrieve.utils.allocation import give_back_memory
from xretrieve.version import __version__

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

TIDY = 2.0  # seconds
STATIC = Path(__file__).parent / "static"
ABOUT = "Find pictures with a sentence, several details, a picture, or a picture and a change."
REASONS = {
    400: "The query cannot be answered by this index.",
    401: "No token, or a wrong one.",
    403: "The server is not called by this name, or a page of another site asked.",
    404: "No such picture or session.",
    408: "The request came too slowly.",
    413: "More bytes than are taken.",
    422: "The request is not well formed.",
    500: "A fault of the server.",
    503: "Too much is waiting; the header Retry-After says for how many seconds.",
}
PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"content": PROBLEM, "description": reason} for status, reason in REASONS.items()
}


def create_app(gallery: Gallery, settings: Settings | None = None) -> FastAPI:
    """An ASGI application over a gallery; the model is loaded when it starts."""
    settings = settings or Settings()
    state = State.of(gallery, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await to_thread.run_sync(state.follower.newest.prepare)  # the first caller should not wait for it
        gc.collect()
        gc.freeze()  # later collections look at requests only, and take no time
        state.start()
        tidying = asyncio.ensure_future(_tidy(state))
        try:
            yield
        finally:
            tidying.cancel()
            await to_thread.run_sync(state.stop)
            gc.unfreeze()

    app = FastAPI(
        title="xretrieve", description=ABOUT, version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        responses=PROBLEMS,
    )  # fmt: skip
    app.state.xretrieve = state
    for router in (search_routes(state), session_routes(state), about_routes(state)):
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    install(app, str(gallery.path))
    if settings.token:
        _describe_token(app)
    inner = app.build_middleware_stack
    # outermost, so that what is refused costs next to nothing
    app.build_middleware_stack = lambda: Guard(inner(), settings, state.metrics, state.lanes)  # type: ignore[method-assign]
    return app


async def _tidy(state: State) -> None:
    """Give memory back that large requests took."""
    while True:
        await asyncio.sleep(TIDY)
        if state.lanes.untidy:
            state.lanes.untidy = False
            gc.collect()  # what failed holds its request in a circle
            await to_thread.run_sync(give_back_memory)


def _describe_token(app: FastAPI) -> None:
    """Say in the OpenAPI document that a token is needed."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{"token": []}]
        return schema

    app.openapi = described  # type: ignore[method-assign]
