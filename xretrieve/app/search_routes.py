"""Searching, explaining, and the pictures of what was found."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile

from xretrieve.app.answers import explanation, file_of, make_query, picture_of, results
from xretrieve.app.errors import ApiError
from xretrieve.app.lanes import Lane
from xretrieve.app.schemas import Explanation, Results, bodies
from xretrieve.app.state import State
from xretrieve.gallery.queries import Ask
from xretrieve.query import MultiText, Text

PICTURE = {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "A "
                 "JPEG copy."}, 304: {"description": "Not changed since If-None-Match."}}  # fmt: skip


def search_routes(state: State) -> APIRouter:
    """The routes that find something."""
    router = APIRouter(tags=["search"])
    settings, lanes = state.settings, state.lanes
    search_body, explain_body, _, _ = bodies(settings)

    async def query_of(request: Request, lane: Lane, texts: list[str], image: str | None, picture: Any) -> Any:
        """The query, and the content hash of its picture."""
        source = picture_of(state.gallery, texts, image, picture)
        if source is None:
            return make_query(texts), ""
        request.scope["place"].move(lane)
        shown, digest = await state.decoders.query(source)
        return make_query(texts, shown), digest

    async def answer(
        request: Request, texts: list[str], image: str | None, picture: Any, start: float, **how: Any
    ) -> Any:
        query, digest = await query_of(request, lanes.uploads, texts, image, picture)
        by_texts = isinstance(query, (Text, MultiText))
        worker, lane = (state.texts, lanes.texts) if by_texts else (state.pictures, lanes.uploads)
        gallery, ranking = await worker.search(Ask(query, digest=digest, **how), lane)
        return results(gallery, ranking, time.perf_counter() - start)

    @router.post("/api/search", response_model=Results)
    async def search(request: Request, body: search_body) -> Any:  # type: ignore[valid-type]
        """Search with a text, several texts, a picture, or a picture and what should be different."""
        start = time.perf_counter()
        check_rerank(state, body.rerank)
        how = {key: getattr(body, key) for key in ("k", "rerank", "blend", "where", "drop_reference")}
        return await answer(request, body.texts, body.image, body.picture, start, **how)

    @router.post("/api/search/upload", response_model=Results)
    async def search_upload(
        request: Request,
        picture: Annotated[UploadFile, File(description="A picture file to start from.")],
        text: Annotated[str, Form(max_length=settings.max_text, description="What should be different.")] = "",
        k: Annotated[int, Form(ge=1, le=settings.max_k)] = 10,
    ) -> Any:
        """The same for a picture file in a form: `curl -F picture=@photo.jpg -F text="at night"`."""
        start, data = time.perf_counter(), await picture.read()
        return await answer(request, [text] if text.strip() else [], None, data, start, k=k)

    @router.post("/api/explain", response_model=Explanation, response_model_exclude_none=True)
    async def explain(request: Request, body: explain_body) -> Any:  # type: ignore[valid-type]
        """Why a picture answers a query as it does: the score of each part, and which regions each word found."""
        if state.gallery.find(body.id) is None:
            file_of(state.gallery, body.id)
        query, _ = await query_of(request, lanes.explanations, body.texts, body.image, body.picture)
        return await state.pictures.call(lambda gallery: explanation(gallery, query, body.id), lanes.explanations)

    @router.get("/api/pictures", response_class=Response, responses=PICTURE)
    async def picture(
        request: Request,
        id: Annotated[str, Query(min_length=1, max_length=4096, description="The id of an indexed picture.")],
        size: Annotated[int, Query(ge=16, le=2048, description="Longest side in pixels.")] = 320,
    ) -> Response:
        """A small copy of an indexed picture."""
        path = file_of(state.gallery, id)
        tag = state.copies.tag(path, size)
        headers = {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=0, must-revalidate"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(await state.copies.get(path, size, tag), media_type="image/jpeg", headers=headers)

    return router


def check_rerank(state: State, rerank: int | str | None) -> None:
    """``all`` is refused where it means more than the server gives to one search."""
    most = state.settings.max_rerank
    if rerank == "all" and len(state.gallery) > most:
        raise ApiError(422, f"rerank: at most {most} candidates, and the index has {len(state.gallery)} pictures")
