"""Exceptions -> {"detail": message} and a status."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from botformer.data.image_io import BadImage, TooManyPixels
from botformer.errors import InputError
from botformer.serve.refusal import Refusal
from botformer.text import and_more


def add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return JSONResponse({"detail": refusal.detail}, refusal.status, headers=refusal.headers)

    @app.exception_handler(TooManyPixels)
    async def too_many_pixels(_: Request, error: TooManyPixels) -> Response:
        return JSONResponse({"detail": f"the image is too large: it has {error.reason}"}, 413)

    @app.exception_handler(InputError)
    async def bad_input(_: Request, error: InputError) -> Response:
        words = error.reason if isinstance(error, BadImage) else str(error)
        return JSONResponse({"detail": words}, 422)

    @app.exception_handler(RequestValidationError)
    async def bad_arguments(_: Request, error: RequestValidationError) -> Response:
        # The first part says that they are of the query.
        return JSONResponse({"detail": in_words([{**each, "loc": each["loc"][1:]} for each in error.errors()])}, 422)

    @app.exception_handler(ValidationError)
    async def bad_json(_: Request, error: ValidationError) -> Response:
        return JSONResponse({"detail": in_words(error.errors())}, 422)

    @app.exception_handler(HTTPException)
    async def not_there(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"detail": f"{error.detail}; /docs lists what there is"}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def our_fault(_: Request, error: Exception) -> Response:
        """Its words may hold paths of this machine: they are for the log, which has the trace."""
        return JSONResponse({"detail": "the server failed at this request, and its log says why"}, 500)


def in_words(errors: Sequence[Mapping[str, Any]]) -> str:
    """Of pydantic's errors."""
    said = [f"{'.'.join(map(str, each['loc'])) or 'the body'}: {each['msg']}" for each in errors]
    return f"{and_more(said, 3, '; ')}; /docs says what is expected"
