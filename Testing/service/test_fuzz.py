"""Fuzz of a real backend: its OpenAPI schema by schemathesis, uploads and jobs by hypothesis; always the same seeds.

Nothing may answer 500, end the process, log a traceback, be told as a bug, or make memory grow without bound.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.service.annotation_tasks import LoadParameters, SaveParameters, SentMark
from HiResMedSynthLib.service.client import plain_header
from HiResMedSynthLib.service.lesion_tasks import BankParameters, CutParameters
from HiResMedSynthLib.service.protocol import (
    ARRAYS_TYPE,
    BYTES_TYPE,
    JSON_TYPE,
    ImageHeader,
    JobKind,
    ProtocolError,
    image_name,
    pack_arrays,
    unpack_arrays,
)
from HiResMedSynthLib.service.tasks import ComposeParameters, ExportParameters, WhereParameters
from Testing.export.cases import ct_image
from Testing.service.conftest import Backend, start
from Testing.service.images import header_of

MOST_GROWTH = 256 * 2**20  # bytes; the backend of these tests may hold 64 MiB of images and 64 results
NOTHING = "0" * 64
POINT = {"class_name": "n", "shape": "point", "place": [0, 0, 0]}
SECRETS = ("Traceback", 'File "', "site-packages", "/home")


def bounded(examples: int) -> settings:
    """The same examples on each run, none stored."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class Target:
    """A backend under fire."""

    backend: Backend
    log: list[bytes] = field(default_factory=list)
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.backend.port}"

    @property
    def memory(self) -> int:
        """Resident bytes, 0 where this system doesn't tell."""
        told = Path(f"/proc/{self.backend.process.pid}/status")
        lines = told.read_text().splitlines() if told.exists() else []
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    def send(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = self.session.request(method, self.url + path, timeout=30, **options)
        self.judge(answer.status_code, answer.text)
        return answer

    def judge(self, status: int, text: str) -> None:
        assert status < 500, (status, text[:300])
        assert status < 400 or '"what"' in text, (status, text[:300])
        assert not [word for word in (*SECRETS, self.backend.token) if word in text], text[:300]

    def job(self, kind: str, **options: Any) -> str | None:
        """Id of a job that was done; None where it was refused, but never by a bug."""
        body = json.dumps({"kind": kind, **options}).encode()  # NaN too
        answer = self.send("POST", "/jobs", data=body, headers={"Content-Type": JSON_TYPE})
        while answer.status_code == 201:
            told = self.send("GET", f"/jobs/{answer.json()['id']}").json()
            if told["state"] in ("done", "failed"):
                assert "bug" not in (told["error"] or {"what": ""})["what"], (kind, options, told["error"])
                return str(told["id"]) if told["state"] == "done" else None
            time.sleep(0.002)
        return None


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    running = start("--memory-mib", "64")
    one = Target(running)
    one.session.trust_env = False
    one.session.headers["Authorization"] = f"Bearer {running.token}"
    assert running.process.stderr is not None
    reader = threading.Thread(target=lambda: one.log.extend(running.process.stderr or ()), daemon=True)
    reader.start()
    image = ct_image()
    name = running.client.send_image(image.pixels, header_of(image))
    saved = {"images": [{"image": name, "marks": [POINT]}]}
    for kind in get_args(JobKind):  # what is imported once must not count as growth
        one.job(kind, image=name, parameters=saved if kind == "save_annotations" else {})
    before = one.memory
    yield one
    assert running.process.poll() is None, "the backend died"
    growth = one.memory - before
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(timeout=20) == 0
    reader.join(timeout=5)
    assert b"Traceback" not in b"".join(one.log), b"".join(one.log).decode()[-3000:]
    assert growth < MOST_GROWTH, f"it grew by {growth / 2**20:.0f} MiB"


def test_no_answer_is_held_back(target: Target) -> None:
    """Nagle's algorithm against delayed acknowledgement would cost each request 40 ms."""
    taken = []
    for _ in range(10):
        before = time.monotonic()
        target.send("GET", f"/images/{NOTHING}")
        taken.append(time.monotonic() - before)
    assert min(taken) < 0.035


def test_the_openapi_schema_holds_no_500(target: Target) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="the development group installs schemathesis")
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_url(f"{target.url}/openapi.json", headers=dict(target.session.headers))
    seen = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @bounded(20)
            @given(case=operation.as_strategy(generation_mode=mode))
            def fire(case: Any) -> None:
                nonlocal seen
                with contextlib.suppress(requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader):
                    answer = case.call(headers={"Authorization": f"Bearer {target.backend.token}"}, timeout=30)
                    target.judge(answer.status_code, answer.text)
                    seen += 1

            with contextlib.suppress(Unsatisfiable):  # nothing of this operation can be made invalid
                fire()
    assert seen > 150


TYPED = {
    "int": [0, -1, 1, 2, 7, 33, 2**31, 2**63, 10**40],
    "float": [0.0, -1.0, 0.5, 12.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), 10**400],
    "str": ["", "a", "CT", "lung-ct", "cxr", "\ud800", "\0", "x" * 300, "../../etc/passwd", "0" * 64],
    "bool": [True, False],
}
PLAIN = [value for values in TYPED.values() for value in values]
ODD = st.sampled_from([*PLAIN, None, [], [1], [1, 2], [1.0, 2.0, 3.0], [[1, 2, 3]], {}, {"a": 1}, {"\ud800": 1}])
ANY = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
IMAGE = ct_image()
HEADER = plain_header(header_of(IMAGE))


def like(annotation: str) -> st.SearchStrategy[Any]:
    """Values that mostly have the type of a field, so that they come further than its check."""
    plain = st.sampled_from(
        [value for name, values in TYPED.items() if name in annotation for value in values] or PLAIN
    )
    return plain | st.lists(plain, min_size=2, max_size=3) | ANY if "tuple" in annotation else plain | ANY


def odd(kind: type, base: dict[str, Any], leave: str = "") -> st.SearchStrategy[dict[str, Any]]:
    """Parameters with up to two odd values, under names that are known."""
    named = [st.tuples(st.just(f.name), like(str(f.type))) for f in dataclasses.fields(kind) if f.name != leave]
    return st.lists(st.one_of(named), max_size=2).map(lambda changes: base | dict(changes))


HEADERS = (
    ANY
    | odd(ImageHeader, HEADER)
    | odd(HeaderFacts, {}).map(lambda facts: HEADER | {"facts": facts})
    | st.dictionaries(st.sampled_from(["PixelSpacing", "RescaleSlope", "Rows"]), ODD, max_size=3).map(
        lambda tags: HEADER | {"tags": [{name: str(value) for name, value in tags.items()}] * 7}
    )
)
ARRAYS = st.one_of(
    st.builds(lambda: IMAGE.pixels),
    st.builds(
        lambda kind, shape: np.ones(shape, dtype=kind),
        st.sampled_from([
            "i1", "u1", "<i2", ">i2", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "?", "c8", "S3", "U2", "M8[s]", "V4",
        ]),
        st.lists(st.integers(0, 5), max_size=5),
    ),
    st.sampled_from([np.float32(np.nan), np.float32(np.inf)]).map(lambda value: np.full((7, 24, 32), value)),
)  # fmt: skip


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npz(members: list[tuple[str, bytes]], level: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if level else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


CONTENTS = (
    st.binary(max_size=60)
    | ARRAYS.map(npy)
    | ANY.map(lambda value: npy(np.frombuffer(str(value).encode("utf-8", "replace") or b" ", np.uint8)))
)
NAMES = st.sampled_from(
    [
        "pixels",
        "pixels.npy",
        "json",
        "json.npy",
        "mask.npy",
        "..",
        "../x.npy",
        "/x.npy",
        "annotations_coco.json",
        "é.npy",
    ]
)
UPLOADS = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda pixels, header: pack_arrays({"pixels": pixels}, header), ARRAYS, HEADERS),
    st.builds(npz, st.lists(st.tuples(NAMES, CONTENTS), max_size=4), st.integers(0, 1)),
    st.builds(lambda members: npz([*members, ("json.npy", npy(np.frombuffer(b"{}", np.uint8)))], 0),
              st.lists(st.tuples(NAMES, CONTENTS), max_size=2, unique_by=lambda member: member[0])),
    st.builds(lambda pixels, cut: pack_arrays({"pixels": pixels}, HEADER)[:cut], ARRAYS, st.integers(0, 2000)),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_malformed_images_are_refused(target: Target) -> None:
    stored = []

    @bounded(300)
    @given(data=UPLOADS)
    def fire(data: bytes) -> None:
        name = hashlib.sha256(data).hexdigest()
        with contextlib.suppress(ProtocolError, KeyError, TypeError, ValueError, AttributeError):
            arrays, header = unpack_arrays(data)
            name = image_name(arrays["pixels"], header)
        path = f"/images/{name}"
        if target.send("PUT", path, data=data, headers={"Content-Type": ARRAYS_TYPE}).status_code == 201:
            stored.append(name)

    fire()
    for name in dict.fromkeys(stored):  # an odd image that was taken may be refused by a job, but not end in a bug
        for kind in ("inspect", "danger"):
            target.job(kind, image=name)
        job = target.job("save_annotations", parameters={"images": [{"image": name, "marks": [POINT]}]})
        if job is not None:  # and what was saved can be read again
            folder = target.session.get(f"{target.url}/jobs/{job}/result", timeout=30).content
            blob = hashlib.sha256(folder).hexdigest()
            target.send("PUT", f"/blobs/{blob}", data=folder, headers={"Content-Type": BYTES_TYPE})
            assert target.job("load_annotations", parameters={"folder": blob})


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_malformed_blobs_are_refused(target: Target) -> None:
    @bounded(100)
    @given(data=UPLOADS)
    def fire(data: bytes) -> None:
        name = hashlib.sha256(data).hexdigest()
        answer = target.send("PUT", f"/blobs/{name}", data=data, headers={"Content-Type": BYTES_TYPE})
        assert answer.status_code == 201
        mark = POINT | {"shape": "segment", "corner": [0, 0, 0], "mask": name}
        image = image_name(IMAGE.pixels, HEADER)
        target.job("save_annotations", parameters={"images": [{"image": image, "marks": [mark]}]})
        target.job("load_annotations", parameters={"folder": name})
        target.job("export", image=image, parameters={"case": {}, "lesions": name})

    target.backend.client.send_image(IMAGE.pixels, header_of(IMAGE))
    fire()


def phantom() -> MedicalImage:
    """A body with two lungs, small."""
    z, y, x = np.ogrid[-1:1:12j, -1:1:72j, -1:1:72j]
    pixels = np.full((12, 72, 72), -1000, np.int16)
    pixels[np.broadcast_to(x**2 + y**2 < 0.9, pixels.shape)] = 40
    for side in (-0.45, 0.45):
        pixels[((x - side) / 0.33) ** 2 + (y / 0.6) ** 2 + (z / 1.2) ** 2 < 1] = -850
    places = np.array([[0.0, 0.0, 5.0 * k] for k in range(12)])
    return ct_image(pixels=pixels, pixel_spacing_mm=(4.0, 4.0), positions_lps_mm=places, slice_thickness_mm=5.0)


REQUEST = odd(LesionRequest, {"size_mm": [8.0, 12.0]})
PARAMETERS: dict[str, Callable[[str], st.SearchStrategy[dict[str, Any]]]] = {
    "danger": lambda _: odd(WhereParameters, {}),
    "prior": lambda _: odd(WhereParameters, {}),
    "candidates": lambda _: odd(WhereParameters, {"count": 5}, leave="count"),
    "compose": lambda _: odd(ComposeParameters, {"settings": {"requests": [{"size_mm": [8, 12]}]}}),
    "compose, settings": lambda _: odd(CaseSettings, {"requests": [{}]}).map(lambda told: {"settings": told}),
    "compose, request": lambda _: REQUEST.map(lambda told: {"settings": {"requests": [told]}}),
    "export": lambda _: odd(ExportParameters, {"case": {}, "lesions": NOTHING}),
    "bank": lambda _: odd(BankParameters, {}),
    "cut_lesion": lambda _: odd(CutParameters, {"name": "x", "mask": NOTHING}),
    "save_annotations": lambda image: odd(SentMark, POINT).map(lambda m: {"images": [{"image": image, "marks": [m]}]}),
    "save_annotations, all": lambda _: odd(SaveParameters, {"images": []}),
    "load_annotations": lambda _: odd(LoadParameters, {"folder": NOTHING}),
    "models": lambda _: st.dictionaries(st.text(max_size=5), ODD, max_size=2),
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_odd_parameters_are_refused(target: Target, kind: str) -> None:
    body = phantom()
    image = target.backend.client.send_image(body.pixels, header_of(body))

    @bounded(40)
    @given(parameters=PARAMETERS[kind](image))
    def fire(parameters: dict[str, Any]) -> None:
        target.job(kind.split(",")[0], image=image, parameters=parameters)

    fire()
