"""Sessions: one sentence after another about one picture."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Path, Query

from xretrieve.app.answers import results
from xretrieve.app.errors import ApiError
from xretrieve.app.schemas import Results, SessionState, bodies
from xretrieve.app.state import State
from xretrieve.session import Session

if TYPE_CHECKING:
    from xretrieve.gallery import Gallery

Name = Annotated[str, Path(min_length=1, max_length=64, description="The session's name.")]


def session_routes(state: State) -> APIRouter:
    """The routes under ``/api/sessions``; all of them wait for their turn before the model."""
    router = APIRouter(prefix="/api/sessions", tags=["sessions"])
    _, _, new_body, sentence_body = bodies(state.settings)
    sessions, lane = state.sessions, state.lanes.texts

    def answer(name: str, session: Session) -> dict[str, Any]:
        return {"session": name, "texts": list(session.texts), "seconds_left": sessions.seconds}

    async def change(name: str, how: Callable[[Session], Any] | None) -> dict[str, Any]:
        def work(gallery: "Gallery") -> dict[str, Any]:
            session = sessions.get(name, gallery)
            if how is not None:
                how(session)
                sessions.note(name, session)
            return answer(name, session)

        return await state.texts.call(work, lane)

    @router.post("", response_model=SessionState, status_code=201)
    async def open_session(body: new_body) -> Any:  # type: ignore[valid-type]
        """Open a session."""
        return answer(*await state.texts.call(lambda gallery: sessions.open(gallery, body.combine, body.where), lane))

    @router.get("/{session}", response_model=SessionState)
    async def look(session: Name) -> Any:
        """What was said so far."""
        return await change(session, None)

    @router.post("/{session}/add", response_model=SessionState)
    async def add(session: Name, body: sentence_body) -> Any:  # type: ignore[valid-type]
        """Say one more sentence."""

        def say(held: Session) -> None:
            if len(held) >= state.settings.max_texts:
                raise ApiError(422, f"text: a session takes {state.settings.max_texts} sentences; undo some")
            held.add(body.text)

        return await change(session, say)

    @router.post("/{session}/undo", response_model=SessionState)
    async def undo(session: Name) -> Any:
        """Take the last sentence back."""
        return await change(session, lambda held: held.undo())

    @router.get("/{session}/ranking", response_model=Results)
    async def ranking(session: Name, k: Annotated[int, Query(ge=1, le=state.settings.max_k)] = 10) -> Any:
        """The best pictures after the last sentence."""
        start = time.perf_counter()

        def work(gallery: "Gallery") -> "tuple[Gallery, Any]":
            return gallery, sessions.get(session, gallery).ranking(k)

        gallery, found = await state.texts.call(work, lane)
        return results(gallery, found, time.perf_counter() - start)

    @router.delete("/{session}", status_code=204)
    async def close(session: Name) -> None:
        """Close it."""
        await state.texts.call(lambda _: sessions.close(session), lane)

    return router
