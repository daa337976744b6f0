"""The HTTP application: routes over store and jobs. Everything that can go wrong is answered in one form."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, get_args

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.service.guards import Guards
from HiResMedSynthLib.service.jobs import JobQueue
from HiResMedSynthLib.service.messages import image_from
from HiResMedSynthLib.service.protocol import PROTOCOL_VERSION, JobKind, image_name, unpack_arrays
from HiResMedSynthLib.service.refusals import AsciiResponse, RefusedError, answer_errors
from HiResMedSynthLib.service.store import Store
from HiResMedSynthLib.service.tasks import TASKS, Work
from HiResMedSynthLib.versions import installed_versions

NAME = re.compile(r"[0-9a-f]{64}")
JOB = re.compile(r"[0-9a-f]{32}")


class JobRequest(BaseModel):
    """A job that is asked for."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal[get_args(JobKind)]  # type: ignore[valid-type]
    image: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    parameters: dict[str, Any] = Field(default_factory=dict)


def make_app(
    *, token: str, hosts: frozenset[str] | None, origin: str, memory_bytes: int, device: str = "cpu"
) -> Guards:
    """The application behind its guards.

    Args:
        token: the secret that every request must carry.
        hosts, origin: see `Guards`.
        memory_bytes: budget for loaded images and what is derived from them.
        device: where backgrounds are made: "cpu", "cuda", or "auto" for a GPU where there is one.
    """
    store = Store(memory_bytes)
    jobs = JobQueue(device=device, free_memory=store.drop_made)

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
    answer_errors(app)

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

    def take_image(name: str, content: bytes) -> None:
        arrays, header = unpack_arrays(content)
        if set(arrays) != {"pixels"} or not isinstance(header, dict):
            raise RefusedError(422, "an image is one array 'pixels' with its header", "Use the client.")
        image = image_from(arrays["pixels"], header)
        if name != image_name(arrays["pixels"], header):
            raise RefusedError(422, "the image differs from its name (sha256)", "Send it again.")
        store.put(f"image {name}", image, image.pixels.nbytes)

    def take_blob(name: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != name:
            raise RefusedError(422, "the content differs from its name (sha256)", "Send it again.")
        store.put(f"blob {name}", content, len(content))

    # a large upload is read in a thread of its own: other requests are answered meanwhile
    @app.put("/images/{name}", status_code=201)
    async def put_image(name: str, request: Request) -> dict[str, bool]:
        await run_in_threadpool(take_image, _checked(name, NAME), await request.body())
        return {"held": True}

    @app.put("/blobs/{name}", status_code=201)
    async def put_blob(name: str, request: Request) -> dict[str, bool]:
        await run_in_threadpool(take_blob, _checked(name, NAME), await request.body())
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
