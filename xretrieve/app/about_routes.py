"""What the server says about itself: health, metrics, what is searched."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from xretrieve.app.errors import ApiError, without_places
from xretrieve.app.schemas import Health, Info, Problem
from xretrieve.app.state import State
from xretrieve.version import __version__

PATIENCE = 2.0  # seconds that the answer about health waits for a change to be read


def about_routes(state: State) -> APIRouter:
    """The routes that search nothing."""
    router = APIRouter(tags=["about"])
    settings = state.settings

    @router.get("/api/health", response_model=Health, response_model_exclude_none=True,
                responses={503: {"model": Problem}})  # fmt: skip
    async def health() -> Any:
        """Whether answers can be expected, and whether they are of the index as it is on the disk now. Asks for no
        token."""
        if not state.texts.alive:
            raise ApiError(503, "the server is starting or stopping; try again later")
        follower = state.follower
        if not follower.newest.current:
            await to_thread.run_sync(follower.look, PATIENCE)
        gallery = follower.newest
        stale = not gallery.current
        problem = gallery.problem or "the index on the disk has changed; it is being read"
        return {
            "status": "stale" if stale else "ok",
            "pictures": len(gallery),
            "revision": gallery.info["revision"],
            "waiting": state.lanes.waiting,
            "lanes": {name: lane.inside for name, lane in state.lanes.all.items()},
            "limits": settings.limits,
            "problem": without_places(problem, str(gallery.path)) if stale else None,
        }

    @router.get("/api/info", response_model=Info)
    async def info() -> Any:
        """What is searched, and what one request may ask for."""
        gallery = state.gallery
        about = gallery.info
        by = about.get("coarse", {}).get("by")
        limits = {
            "texts": settings.max_texts, "text": settings.max_text, "k": settings.max_k,
            "rerank": settings.max_rerank, "body": settings.max_body, "pixels": settings.max_pixels,
        }  # fmt: skip
        return {
            "name": gallery.path.resolve().stem,
            "pictures": len(gallery),
            "matcher": about["matcher"]["name"],
            "coarse": about["coarse"]["name"] if by == "matcher" else by,
            "regions": bool(about.get("tokens")),
            "version": __version__,
            "limits": limits,
        }

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return PlainTextResponse(state.metrics.text(), media_type="text/plain; version=0.0.4")

    return router
