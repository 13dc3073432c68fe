"""Every error is JSON with one plain sentence, and names no place on the server's disk."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from xretrieve.errors import XRetrieveError

PLACE = re.compile(r"(?<![\w./:])/(?:[^\s/'\",;:]+/)+([^\s/'\",;:]+)")  # an absolute path; its last part is kept
SAID = {
    404: "there is nothing at {path}; /docs lists what there is",
    405: "{method} does not go with {path}; /docs says what does",
}


class ApiError(Exception):
    """An answer other than the one hoped for.

    Args:
        status: of HTTP.
        sentence: for the caller.
        retry: seconds to wait before the next try, where that helps.
    """

    def __init__(self, status: int, sentence: str, retry: int | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.retry = status, sentence, retry

    def answer(self) -> JSONResponse:
        """The response."""
        headers = {"Retry-After": str(self.retry or 1)} if self.status == 503 else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": self.sentence}, self.status, headers)


def without_places(sentence: str, gallery: str) -> str:
    """A message as strangers may read it: ``gallery`` (its folder) becomes `the index`, other paths their names.

    >>> without_places("/home/me/p.xr has no id 'a'; see /home/me/x/b.jpg, or runs/x", "/home/me/p.xr")
    "the index has no id 'a'; see b.jpg, or runs/x"
    """
    return PLACE.sub(r"\1", sentence.replace(gallery, "the index"))


def install(app: FastAPI, gallery: str) -> None:
    """Answer every error of an app in this form; ``gallery`` as in :func:`without_places`."""

    @app.exception_handler(ApiError)
    async def _own(request: Request, error: ApiError) -> JSONResponse:
        return error.answer()

    @app.exception_handler(XRetrieveError)
    async def _input(request: Request, error: XRetrieveError) -> JSONResponse:
        return ApiError(400, without_places(str(error), gallery)).answer()

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return ApiError(422, first_problem([*error.errors()])).answer()

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> JSONResponse:
        sentence = SAID.get(error.status_code, str(error.detail)).format(
            path=request.url.path[:200], method=request.method
        )
        return JSONResponse({"error": sentence}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "the server failed at this; its log says more").answer()


def first_problem(problems: list[Any] | tuple[Any, ...]) -> str:
    """The first thing that pydantic found wrong, as a sentence.

    >>> first_problem([{"loc": ("body", "k"), "msg": "Input should be less than or equal to 5", "type": "x"}])
    'k: input should be less than or equal to 5'
    """
    problem = problems[0]
    if problem["type"] == "json_invalid":
        return "the body is not valid JSON"
    where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path", "header"))
    what = str(problem["msg"]).removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return (f"{where}: {what}" if where else f"the request: {what}") + more
