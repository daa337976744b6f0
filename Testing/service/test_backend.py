"""The way through the backend, over real HTTP to a real process: image in, case composed, export out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.case_file import case_bytes
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.service.client import BackendClient, BackendError
from HiResMedSynthLib.service.jobs import JobQueue, Result, Step
from HiResMedSynthLib.service.protocol import TOKEN_VARIABLE
from HiResMedSynthLib.service.server import ServerSettings
from HiResMedSynthLib.service.store import Store
from Testing.service.conftest import PROGRAM, Backend, free_port, start
from Testing.service.images import header_of

SETTINGS = {"requests": [{"size_mm": [10, 14], "seed": seed} for seed in range(2)]}


@pytest.fixture(scope="module")
def ct(ct_series_folder: Path) -> MedicalImage:
    return read_image(ct_series_folder)


@pytest.fixture(scope="module")
def sent(backend: Backend, ct: MedicalImage) -> str:
    return backend.client.send_image(ct.pixels, header_of(ct))


def run(client: BackendClient, kind: str, image: str | None = None, **parameters: object) -> tuple[dict, dict]:
    job = client.submit(kind, image=image, parameters=parameters)  # type: ignore[arg-type]
    client.wait(job)
    return client.result(job)


def test_health_tells_versions_and_memory(backend: Backend, sent: str) -> None:
    health = backend.client.health()
    assert health["versions"]["hiresmedsynth"]
    assert "image" in health["loaded"]
    assert health["memory"]["used_bytes"] > 0


def test_an_unchanged_image_is_sent_once(backend: Backend, ct: MedicalImage, sent: str) -> None:
    client = backend.client
    methods = []
    original = client._session.request

    def request(method: str, *arguments: object, **options: object) -> object:
        methods.append(method)
        return original(method, *arguments, **options)

    client._session.request = request
    assert client.send_image(ct.pixels, header_of(ct)) == sent
    assert methods == ["GET"]


def test_compose_over_the_wire_equals_compose_in_the_library(backend: Backend, ct: MedicalImage, sent: str) -> None:
    arrays, document = run(backend.client, "compose", sent, settings=SETTINGS, seed=5)
    requests = tuple(LesionRequest(size_mm=(10.0, 14.0), seed=seed) for seed in range(2))
    case = draw_case(ct, CaseSettings(requests=requests), 5)
    text, packed = case_bytes(case)
    assert document["case"] == json.loads(text)
    assert arrays["lesions"].tobytes() == packed
    whole = ct.pixels.copy()
    for number, corner in document["corners"].items():
        patch = arrays[f"{number}.pixels"]
        whole[tuple(slice(c, c + n) for c, n in zip(corner, patch.shape, strict=True))] = patch
    assert np.array_equal(whole, compose(ct, case).image.pixels)


def test_the_export_arrives_whole(backend: Backend, sent: str, tmp_path: Path) -> None:
    client = backend.client
    arrays, document = run(client, "compose", sent, settings=SETTINGS, seed=5)
    lesions = client.send_bytes(arrays["lesions"].tobytes())
    parameters = {"case": document["case"], "lesions": lesions, "pair": True, "seg": "labelmap"}
    job = client.submit("export", image=sent, parameters=parameters)
    assert any("CT Image Storage" in note for note in client.wait(job).notes)
    client.fetch_export(job, tmp_path / "case")
    files = sorted((tmp_path / "case" / "dicom").glob("*.dcm"))
    assert len(files) == 12
    assert all(pydicom.dcmread(file).SyntheticData == "YES" for file in files)
    assert pydicom.dcmread(tmp_path / "case" / "segmentation.dcm").SegmentationType == "LABELMAP"
    assert pydicom.dcmread(tmp_path / "case" / "measurements.dcm").Modality == "SR"
    assert json.loads((tmp_path / "case" / "case.json").read_text()) == document["case"]
    with pytest.raises(BackendError, match="already exists"):
        client.fetch_export(job, tmp_path / "case")


def test_where_lesions_may_go(backend: Backend, ct: MedicalImage, sent: str) -> None:
    labels, told = run(backend.client, "danger", sent)
    assert labels["labels"].shape == ct.shape
    assert "pleura margin" in told["names"].values()
    heat, _ = run(backend.client, "prior", sent)
    assert heat["heat"].sum() == pytest.approx(1, abs=1e-3)
    places, _ = run(backend.client, "candidates", sent, count=7, seed=1)
    assert places["places"].shape == (7, 3)
    assert (labels["labels"][tuple(places["places"].T)] == 0).all()


def test_inspect_and_the_bank(backend: Backend, sent: str) -> None:
    _, told = run(backend.client, "inspect", sent)
    assert told["facts"]["rows"] == 512
    pictures, held = run(backend.client, "bank", None)
    assert {f"{card['name']}.picture" for card in held["cards"]} == set(pictures)
    assert all(card["patient_id"].startswith("LIDC") for card in held["cards"] if card["type"] == "solid")


def test_errors_are_for_a_person(backend: Backend, sent: str) -> None:
    client = backend.client
    for kind, parameters, words in (
        ("compose", {"settings": {"requests": [{"place": [6, 256, 256]}]}}, "would touch"),
        ("compose", {"settings": {"requests": [{"bank_entry": "nope", "size_mm": [10, 12]}]}}, "no lesion 'nope'"),
        ("compose", {"settings": {"requests": [{"colour": "red"}]}}, "colour"),
        ("generate", {}, "12 slices"),
        ("export", {"case": {}, "lesions": "0" * 64}, "doesn't hold"),
        ("prior", {"nonsense": 1}, "no parameter"),
    ):
        job = client.submit(kind, image=sent, parameters=parameters)  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=words) as failed:
            client.wait(job)
        assert failed.value.info.remedy
    with pytest.raises(BackendError, match="needs an image"):
        client.wait(client.submit("danger"))


def test_a_job_is_cancelled_and_the_next_one_works(backend: Backend, sent: str) -> None:
    client = backend.client
    many = {"requests": [{"size_mm": [10, 12], "seed": seed} for seed in range(300)], "min_distance_mm": 0.5}
    job = client.submit("compose", image=sent, parameters={"settings": many})
    waiting = client.submit("inspect", image=sent)
    while client.status(job).done < 2:
        time.sleep(0.01)
    start_of_cancel = time.monotonic()
    client.cancel(job)
    with pytest.raises(BackendError, match="cancelled"):
        client.wait(job)
    assert time.monotonic() - start_of_cancel < 2
    assert client.wait(waiting).state == "done"


def test_it_ends_when_its_parent_goes() -> None:
    running = start()
    assert running.client.health()["protocol"] == 1
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(timeout=20) == 0


def test_a_killed_backend_is_told_at_once() -> None:
    running = start()
    client = running.client
    running.process.kill()
    running.process.wait(timeout=10)
    before = time.monotonic()
    with pytest.raises(BackendError, match="doesn't answer"):
        client.health()
    assert time.monotonic() - before < 2


@pytest.mark.parametrize(
    "wrong", [{"token": "short"}, {"token": "x" * 64, "host": "0.0.0.0"}, {"token": "x" * 64, "host": "server.example"}]
)
def test_it_refuses_to_start_unsafely(wrong: dict) -> None:
    from HiResMedSynthLib.errors import SettingsError

    with pytest.raises(SettingsError) as refused:
        ServerSettings(memory_bytes=2**30, **wrong)
    assert refused.value.remedy


def test_the_port_is_the_one_that_was_asked_for_and_an_open_host_needs_tls() -> None:
    port = free_port()
    running = start("--port", str(port))
    assert running.port == port
    assert running.client.health()
    running.process.kill()
    refused = subprocess.run(
        [PROGRAM, "serve", "--host", "0.0.0.0"],
        env={**os.environ, TOKEN_VARIABLE: "x" * 64}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "--tls-certificate" in refused.stderr and "Traceback" not in refused.stderr


def test_the_client_needs_numpy_and_requests_only() -> None:
    code = (
        "import sys\nimport HiResMedSynthLib.service.client\n"
        "print({'torch', 'pydantic', 'pydicom', 'SimpleITK', 'fastapi', 'scipy', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_out_of_memory_lets_everything_go_and_tries_again_on_the_cpu() -> None:
    import torch

    freed = threading.Event()
    seen = []

    def task(step: Step) -> Result:
        seen.append(step.device)
        if step.device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Result(b"done", "text/plain")

    jobs = JobQueue(device="cuda", free_memory=freed.set)
    name = jobs.submit("compose", task)
    deadline = time.monotonic() + 20
    while not (status := jobs.status(name)).finished and time.monotonic() < deadline:  # type: ignore[union-attr]
        time.sleep(0.01)
    jobs.close()
    assert (status.state, seen) == ("done", ["cuda", "cpu"])  # type: ignore[union-attr]
    assert freed.is_set()
    assert any("memory ran out" in note for note in status.notes)  # type: ignore[union-attr]


def test_the_store_lets_the_least_recently_used_go() -> None:
    from HiResMedSynthLib.errors import SettingsError

    store = Store(100)
    for name in "abc":
        store.put(name, name, 30)
    assert store.get("a") == "a"
    store.put("d", "d", 30)
    assert store.names() == ["c", "a", "d"]
    with pytest.raises(SettingsError):
        store.put("e", "e", 101)
    assert store.get_or_make("f", lambda: ("f", 101)) == "f"  # it serves once, what was held stays
    assert store.names() == ["c", "a", "d"]
