"""Searching, explaining, and the pictures of what was found."""

import time
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from xretrieve.app.answers import explanation, file_of, make_query, results
from xretrieve.app.errors import ApiError
from xretrieve.app.schemas import Explanation, Results, bodies
from xretrieve.app.state import State
from xretrieve.gallery_asked import Ask

PICTURE = {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "A "
                 "JPEG copy."}, 304: {"description": "Not changed since If-None-Match."}}  # fmt: skip


def search_routes(state: State) -> APIRouter:
    """The routes that find something."""
    router = APIRouter(tags=["search"])
    gallery, settings = state.gallery, state.settings
    search_body, explain_body, _, _ = bodies(settings)

    async def ask_of(texts: list[str], image: str | None, picture: Any, **how: Any) -> Ask:
        query = await to_thread.run_sync(make_query, gallery, settings, texts, image, picture, limiter=state.decoders)
        return Ask(query, **how)

    async def answer(ask: Ask, start: float) -> dict[str, Any]:
        ranking = await state.worker.search(ask)
        return results(ranking, time.perf_counter() - start)

    @router.post("/api/search", response_model=Results)
    async def search(body: search_body) -> Any:  # type: ignore[valid-type]
        """Search with a text, several texts, a picture, or a picture and what should be different."""
        start = time.perf_counter()
        check_rerank(state, body.rerank)
        how = {key: getattr(body, key) for key in ("k", "rerank", "blend", "where", "drop_reference")}
        return await answer(await ask_of(body.texts, body.image, body.picture, **how), start)

    @router.post("/api/search/upload", response_model=Results)
    async def search_upload(
        picture: Annotated[UploadFile, File(description="A picture file to start from.")],
        text: Annotated[str, Form(max_length=settings.max_text, description="What should be different.")] = "",
        k: Annotated[int, Form(ge=1, le=settings.max_k)] = 10,
    ) -> Any:
        """The same for a picture file in a form: `curl -F picture=@photo.jpg -F text="at night"`."""
        start, data = time.perf_counter(), await picture.read()
        return await answer(await ask_of([text] if text.strip() else [], None, data, k=k), start)

    @router.post("/api/explain", response_model=Explanation, response_model_exclude_none=True)
    async def explain(body: explain_body) -> Any:  # type: ignore[valid-type]
        """Why a picture answers a query as it does: the score of each part, and which regions each word found."""
        file_or_features(state, body.id)
        ask = await ask_of(body.texts, body.image, body.picture)
        return await state.worker.call(lambda: explanation(gallery, ask.query, body.id))

    @router.get("/api/pictures", response_class=Response, responses=PICTURE)
    async def picture(
        request: Request,
        id: Annotated[str, Query(min_length=1, max_length=4096, description="The id of an indexed picture.")],
        size: Annotated[int, Query(ge=16, le=2048, description="Longest side in pixels.")] = 320,
    ) -> Response:
        """A small copy of an indexed picture."""
        path = file_of(gallery, id)
        headers = {"ETag": f'"{state.copies.tag(path, size)}"', "Cache-Control": "private, max-age=0, must-revalidate"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        made = await to_thread.run_sync(state.copies.get, path, size, limiter=state.decoders)
        return Response(made, media_type="image/jpeg", headers=headers)

    return router


def check_rerank(state: State, rerank: int | str | None) -> None:
    """``all`` is refused where it means more than the server gives to one search."""
    most = state.settings.max_rerank
    if rerank == "all" and len(state.gallery) > most:
        raise ApiError(422, f"rerank: at most {most} candidates, and the index has {len(state.gallery)} pictures")


def file_or_features(state: State, id_: str) -> None:
    """An id that is not in the index is status 404."""
    if id_ not in state.gallery:
        file_of(state.gallery, id_)
