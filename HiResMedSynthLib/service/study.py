"""The reader study's application: the page, the pictures of the present trial and the next, and the answers."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from HiResMedSynthLib.evaluation.reader_study import HIGHEST, Study, StudyError
from HiResMedSynthLib.evaluation.study_answers import MOST_CONFIDENT, AnswersFile
from HiResMedSynthLib.service.refusals import AsciiResponse, RefusedError, answer_errors
from HiResMedSynthLib.service.study_guards import SESSION_PATH, Sessions, StudyGuards

PAGE = {
    "/": ("study.html", "text/html; charset=utf-8"),
    "/study.css": ("study.css", "text/css; charset=utf-8"),
    "/study.js": ("study.js", "text/javascript; charset=utf-8"),
    "/picture.js": ("picture.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Code(BaseModel):
    """A code that is exchanged."""

    model_config = ConfigDict(extra="forbid", strict=True)

    code: str = Field(max_length=64)


class Given(BaseModel):
    """An answer as the page sends it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    trial: int = Field(ge=1, le=10**6)
    choice: str = Field(max_length=16)
    confidence: int = Field(ge=1, le=MOST_CONFIDENT)
    seconds: float = Field(ge=0, le=1e6, allow_inf_nan=False)


def make_study_app(study: Study, answers: AnswersFile, sessions: Sessions, host: str) -> StudyGuards:
    """The application behind its guards, for the readers of one study; see `StudyGuards` for `host`."""
    app = FastAPI(
        title="HiResMedSynth reader study",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        default_response_class=AsciiResponse,
    )
    answer_errors(app, "Use the page of the study.")
    guards = StudyGuards(app, sessions=sessions, host=host, open_paths=frozenset(PAGE))
    design = study.design

    def page(path: str) -> None:
        name, kind = PAGE[path]
        content = (files("HiResMedSynthLib.service") / "page" / name).read_bytes()
        app.get(path)(lambda: Response(content, media_type=kind))

    for path in PAGE:
        page(path)

    @app.post(SESSION_PATH)
    def exchange(wanted: Code) -> Response:
        found = sessions.exchange(wanted.code)
        if found is None:
            raise RefusedError(401, "this code is wrong or was used", "Take the newest one that was printed for you.")
        response = AsciiResponse({"reader": found[0]})
        response.set_cookie(guards.cookie, found[1], httponly=True, samesite="strict", path="/")
        return response

    @app.get("/study")
    def told(request: Request) -> dict[str, Any]:
        reader = request.scope["reader"]
        return {
            "reader": reader,
            "task": design.task,
            "choices": study.choices(),
            "trials": len(study.trials(reader)),
            "next": answers.next_trial(reader),
            "rows": design.rows,
            "columns": design.columns,
            "pixel_aspect": design.pixel_aspect,
            "units": design.units,
            "offset": design.offset,
            "window": design.window,
            "highest": HIGHEST,
            "mark_radius": design.mark_radius,
        }

    @app.get("/trials/{number}")
    def trial(number: int, request: Request) -> dict[str, Any]:
        return {"marks": [shown.mark for shown in _trial(study, answers, request.scope["reader"], number)]}

    @app.get("/trials/{number}/images/{position}")
    def picture(number: int, position: int, request: Request) -> Response:
        shown = _trial(study, answers, request.scope["reader"], number)
        if not 1 <= position <= len(shown):
            raise RefusedError(404, "there is no such image", "Reload the page.")
        try:
            content = study.packed_picture(shown[position - 1].token)
        except StudyError as error:
            raise RefusedError(409, error.what, error.remedy) from error
        return Response(content, media_type="application/octet-stream", headers={"content-encoding": "gzip"})

    @app.post("/answers")
    def answer(given: Given, request: Request) -> dict[str, Any]:
        try:
            following = answers.add(reader=request.scope["reader"], **given.model_dump())
        except StudyError as error:
            raise RefusedError(409, error.what, error.remedy) from error
        return {"next": following}

    return guards


def _trial(study: Study, answers: AnswersFile, reader: str, number: int) -> Any:
    """A reader's trial: the one that is asked, or the one after it, so that its pictures can be fetched ahead."""
    asked = answers.next_trial(reader)
    if asked is None or number not in (asked, asked + 1) or number > len(study.trials(reader)):
        raise RefusedError(404, "this trial isn't open", "Reload the page.")
    return study.trials(reader)[number - 1]
