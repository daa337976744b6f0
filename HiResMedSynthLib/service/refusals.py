"""How a request that can't be done is answered: one form for every refusal, with nothing of the request in it."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.service.protocol import ProtocolError

OUR_CLIENT = "Use the client that comes with HiResMedSynth."
logger = logging.getLogger("hiresmedsynth.service")


class AsciiResponse(JSONResponse):
    """JSON in ASCII: a refusal may repeat a word of the request that is no valid Unicode."""

    def render(self, content: Any) -> bytes:
        """The bytes of the answer."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class RefusedError(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, what: str, remedy: str) -> None:
        self.status, self.what, self.remedy = status, what, remedy


def answer_errors(app: FastAPI, remedy: str = OUR_CLIENT) -> None:
    """Answers every error of the application; nothing of the request and no traceback is repeated.

    `remedy`: what to do about a request that isn't offered or valid.
    """

    def answer(status: int, what: str, remedy: str, where: str | None = None) -> AsciiResponse:
        return AsciiResponse({"error": {"what": what, "remedy": remedy, "where": where}}, status_code=status)

    @app.exception_handler(RefusedError)
    def refused(_request: Request, error: RefusedError) -> AsciiResponse:
        return answer(error.status, error.what, error.remedy)

    @app.exception_handler(HiResMedSynthError)
    def known(_request: Request, error: HiResMedSynthError) -> AsciiResponse:
        return answer(422, error.what, error.remedy, error.where)

    @app.exception_handler(ProtocolError)
    def unreadable(_request: Request, error: ProtocolError) -> AsciiResponse:
        return answer(422, str(error), remedy)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> AsciiResponse:
        places = {".".join(str(part)[:40] for part in problem["loc"][1:]) for problem in error.errors()[:5]}
        return answer(422, f"the request is not valid at: {', '.join(sorted(places)) or 'its body'}", remedy)

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> AsciiResponse:
        return answer(error.status_code, "this is not offered", remedy)

    @app.exception_handler(MemoryError)
    def too_large(_request: Request, _error: MemoryError) -> AsciiResponse:
        return answer(507, "there is not enough memory for this", "Send a smaller image.")

    @app.exception_handler(Exception)
    def bug(_request: Request, error: Exception) -> AsciiResponse:
        logger.error("unforeseen problem: %s", type(error).__name__)
        return answer(
            500, "an unforeseen problem, a bug of HiResMedSynth", "Copy the backend's log into a report to us."
        )
