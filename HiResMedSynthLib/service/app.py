"""The HTTP application: routes over store and jobs. Everything that can go wrong is answered in one form."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, get_args

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.service.guards import Guards
from HiResMedSynthLib.service.jobs import JobQueue
from HiResMedSynthLib.service.messages import image_from
from HiResMedSynthLib.service.protocol import PROTOCOL_VERSION, JobKind, ProtocolError, image_name, unpack_arrays
from HiResMedSynthLib.service.store import Store
from HiResMedSynthLib.service.tasks import TASKS, Work
from HiResMedSynthLib.versions import installed_versions

NAME = re.compile(r"[0-9a-f]{64}")
JOB = re.compile(r"[0-9a-f]{32}")
logger = logging.getLogger("hiresmedsynth.service")


class JobRequest(BaseModel):
    """A job that is asked for."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal[get_args(JobKind)]  # type: ignore[valid-type]
    image: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    parameters: dict[str, Any] = Field(default_factory=dict)


class AsciiResponse(JSONResponse):
    """JSON in ASCII: a refusal may repeat a word of the request that is no valid Unicode."""

    def render(self, content: Any) -> bytes:
        """The bytes of the answer."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class RefusedError(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: int, what: str, remedy: str) -> None:
        self.status, self.what, self.remedy = status, what, remedy


def make_app(*, token: str, hosts: frozenset[str], origin: str, memory_bytes: int, device: str = "cpu") -> Guards:
    """The application behind its guards.

    Args:
        token: the secret that every request must carry.
        hosts, origin: see `Guards`.
        memory_bytes: budget for loaded images and what is derived from them.
        device: where networks compute.
    """
    store = Store(memory_bytes)
    jobs = JobQueue(device=device, free_memory=store.drop_all)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        jobs.close()

    app = FastAPI(
        title="HiResMedSynth backend",
        version=str(PROTOCOL_VERSION),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=AsciiResponse,
    )
    _answer_errors(app)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {
            "protocol": PROTOCOL_VERSION,
            "versions": installed_versions(),
            "device": device,
            "memory": {"budget_bytes": memory_bytes, "used_bytes": store.used_bytes},
            "loaded": [name.split(" ")[0] for name in store.names()],
        }

    @app.get("/images/{name}")
    def has_image(name: str) -> dict[str, bool]:
        if store.get(f"image {_checked(name, NAME)}") is None:
            raise RefusedError(404, "the backend doesn't hold this image", "Send it.")
        return {"held": True}

    @app.put("/images/{name}", status_code=201)
    async def put_image(name: str, request: Request) -> dict[str, bool]:
        _checked(name, NAME)
        arrays, header = unpack_arrays(await request.body())
        if set(arrays) != {"pixels"} or not isinstance(header, dict):
            raise RefusedError(422, "an image is one array 'pixels' with its header", "Use the client.")
        image = image_from(arrays["pixels"], header)
        if name != image_name(arrays["pixels"], header):
            raise RefusedError(422, "the image differs from its name (sha256)", "Send it again.")
        store.put(f"image {name}", image, image.pixels.nbytes)
        return {"held": True}

    @app.put("/blobs/{name}", status_code=201)
    async def put_blob(name: str, request: Request) -> dict[str, bool]:
        content = await request.body()
        if hashlib.sha256(content).hexdigest() != _checked(name, NAME):
            raise RefusedError(422, "the content differs from its name (sha256)", "Send it again.")
        store.put(f"blob {name}", content, len(content))
        return {"held": True}

    @app.post("/jobs", status_code=201)
    def submit(wanted: JobRequest) -> dict[str, str]:
        image: MedicalImage | None = None
        if wanted.image is not None:
            image = store.get(f"image {wanted.image}")
            if image is None:
                raise RefusedError(409, "the backend no longer holds this image", "Send it again.")
        work = Work(image=image, image_name=wanted.image, parameters=wanted.parameters, store=store)
        task = TASKS[wanted.kind]
        return {"id": jobs.submit(wanted.kind, lambda step: task(work, step))}

    @app.get("/jobs/{name}")
    def status(name: str) -> dict[str, Any]:
        found = jobs.status(_checked(name, JOB))
        if found is None:
            raise RefusedError(404, "there is no such job", "Start it again.")
        return dataclasses.asdict(found)

    @app.delete("/jobs/{name}")
    def cancel(name: str) -> dict[str, bool]:
        if not jobs.cancel(_checked(name, JOB)):
            raise RefusedError(404, "there is no such job", "Start it again.")
        return {"cancelled": True}

    @app.get("/jobs/{name}/result")
    def result(name: str) -> Response:
        found = jobs.result(_checked(name, JOB))
        if found is None:
            raise RefusedError(409, "this job has no result", "Wait until it is done.")
        return Response(found.body, media_type=found.media_type)

    return Guards(app, token=token, hosts=hosts, origin=origin)


def _checked(name: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(name):
        raise RefusedError(404, "there is nothing of that name", "Use the client.")
    return name


def _answer_errors(app: FastAPI) -> None:
    """One form for every refusal; nothing of the request and no traceback is repeated."""

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
        return answer(422, str(error), "Use the client that comes with HiResMedSynth.")

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> AsciiResponse:
        places = {".".join(str(part)[:40] for part in problem["loc"][1:]) for problem in error.errors()[:5]}
        return answer(422, f"the request is not valid at: {', '.join(sorted(places)) or 'its body'}", "Use the client.")

    @app.exception_handler(HTTPException)
    def http(_request: Request, error: HTTPException) -> AsciiResponse:
        return answer(error.status_code, "this is not offered", "Use the client that comes with HiResMedSynth.")

    @app.exception_handler(MemoryError)
    def too_large(_request: Request, _error: MemoryError) -> AsciiResponse:
        return answer(507, "there is not enough memory for this", "Send a smaller image.")

    @app.exception_handler(Exception)
    def bug(_request: Request, error: Exception) -> AsciiResponse:
        logger.error("unforeseen problem: %s", type(error).__name__)
        return answer(
            500, "an unforeseen problem, a bug of HiResMedSynth", "Copy the backend's log into a report to us."
        )
