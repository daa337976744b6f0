"""The job models through a real backend: what is there, what it is for, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from HiResMedSynthLib import weights
from HiResMedSynthLib.choices import ZONES
from HiResMedSynthLib.placement.network import ENTRY
from HiResMedSynthLib.service.client import BackendError
from HiResMedSynthLib.service.store import Store
from HiResMedSynthLib.service.tasks import Work
from Testing.background.tiny_cascade import write_tiny
from Testing.lesion.small_models import add_singan
from Testing.service.conftest import Backend, start


def add(folder: Path, name: str, kind: str, metadata: dict[str, str] | None = None, **details: Any) -> None:
    """A model of one number, for what its header says alone."""
    card = weights.Card(name=name, kind=kind, data="nothing", licence="CC0-1.0", attribution="nobody", details=details)
    weights.write_model(folder / f"{name}.safetensors", {"x": np.zeros(1, np.float16)}, card, metadata=metadata)
    weights.add(folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        for name, task in (("ours-ct", "danger-ct"), ("ours-where", "location-ct"), ("odd", "/etc/passwd")):
            add(folder, name, "placement", {ENTRY: json.dumps({"task": task})})
        add(folder, "empty", "placement", {ENTRY: "[]"})
        add(folder, "untold", "background", patient="ANON-1")
        weights.add(write_tiny(folder, name="knees", domain="knee"))
        add_singan(folder, "nodule-a")
        (folder / "models" / "broken.safetensors").write_bytes(b"nothing")
        running = start()
    yield running
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(timeout=20) == 0


def told(backend: Backend, **parameters: Any) -> dict[str, Any]:
    client = backend.client
    job = client.submit("models", parameters=parameters)
    client.wait(job)
    arrays, document = client.result(job)
    assert arrays == {}
    assert isinstance(document, dict)
    return document


def test_each_model_is_told_with_what_it_is_for(stocked: Backend) -> None:
    found = {one["name"]: one for one in told(stocked)["models"]}
    assert found["cxr"] == {"name": "cxr", "kind": "background", "shipped": True, "domain": "cxr"}
    assert found["ours-ct"] == {"name": "ours-ct", "kind": "placement", "shipped": False, "task": "danger-ct"}
    assert found["ours-where"]["task"] == "location-ct"
    assert found["nodule-a"] == {"name": "nodule-a", "kind": "lesion-singan", "shipped": False, "type": "solid"}
    assert found["knees"]["domain"] == "knee"
    assert [found[name]["task"] for name in ("odd", "empty")] == [None, None]
    assert found["untold"]["domain"] is None
    assert "broken" not in found


def test_no_path_and_no_patient_is_told(stocked: Backend) -> None:
    text = json.dumps(told(stocked))
    assert "/" not in text.replace("\\/", "")
    assert "ANON-1" not in text
    assert "LIDC" not in text


def test_what_auto_means_is_told_for_each_domain(stocked: Backend) -> None:
    best = told(stocked)["best"]
    assert set(best) == {"danger", "prior"}
    for choices in best.values():
        assert set(choices) == {"lung-ct", "cxr", "kub", "mr"}
        assert all(choices.values())


def test_it_takes_no_parameters(stocked: Backend) -> None:
    with pytest.raises(BackendError, match="no parameter folder"):
        told(stocked, folder="/tmp")


def test_another_prior_or_temperature_looks_at_the_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from HiResMedSynthLib.placement.margins import Margins
    from HiResMedSynthLib.placement.method import PlacementMethod
    from HiResMedSynthLib.service import tasks
    from Testing.service.test_fuzz import phantom

    seen: list[tuple[int, int, str]] = []

    class Told:
        device = "auto"

        def progress(self, done: int, total: int, message: str) -> None:
            seen.append((done, total, message))

    looks = []
    real = tasks.prepare_ground

    def prepare(image: Any, **options: Any) -> Any:
        looks.append(options["placement"])
        return real(image, **options)

    monkeypatch.setattr(tasks, "prepare_ground", prepare)
    work = Work(image=phantom(), image_name="0" * 64, parameters={}, store=Store(2**30))
    one, other = PlacementMethod(), PlacementMethod(temperature=2.0)
    grounds = [work.ground("lung-ct", Margins(), how, Told()) for how in (one, other, one)]  # type: ignore[arg-type]
    assert len(looks) == 1
    assert grounds[0] is grounds[2]
    assert [ground.placement for ground in grounds[:2]] == [one, other]
    assert grounds[1].danger_map is grounds[0].danger_map
    assert grounds[1].heat().max() < grounds[0].heat().max(), "more even"
    work.ground("lung-ct", Margins(), dataclasses.replace(one, danger="rule"), Told())  # type: ignore[arg-type]
    assert len(looks) == 2
    assert (12, 12, "looking where lesions may go, slice 12 of 12") in seen


def test_a_case_at_a_given_place_leaves_the_other_slices_until_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from HiResMedSynthLib.placement.chest_by_slice import ChestBySlice
    from HiResMedSynthLib.service.tasks import compose_job, danger
    from Testing.placement.phantoms import chest_ct

    class Silent:
        device = "cpu"

        def progress(self, done: int, total: int, message: str) -> None: ...

    looked: list[slice] = []
    real = ChestBySlice._name
    monkeypatch.setattr(ChestBySlice, "_name", lambda self, some: (looked.append(some), real(self, some)))
    image, store, step = chest_ct(64, slice_mm=2.0, noise_hu=20), Store(2**30), Silent()
    request = {"place": [40.0, 78.0, 36.0], "size_mm": [8, 10]}
    compose = Work(
        image=image, image_name="0" * 64, parameters={"settings": {"requests": [request], "domain": "lung-ct"}},
        store=store,
    )  # fmt: skip
    compose_job(compose, step)  # type: ignore[arg-type]
    assert 0 < len(looked) <= 5
    used = store.used_bytes
    danger(dataclasses.replace(compose, parameters={"domain": "lung-ct"}), step)  # type: ignore[arg-type]
    assert len(looked) == 8
    assert store.used_bytes < used  # the regions are let go
    assert [
        store.get(name) is store.get(other)
        for name in store.names()
        if name.startswith("danger ")
        for other in store.names()
        if name != other
    ] == [False]  # no heatmap is held as if it were a mask
    compose_job(compose, step)  # type: ignore[arg-type]
    assert len(looked) == 8


def test_a_ct_without_lung_fails_the_job_and_not_each_lesion() -> None:
    from HiResMedSynthLib.errors import PlacementError
    from HiResMedSynthLib.service.tasks import compose_job
    from Testing.placement.phantoms import chest_ct

    class Silent:
        device = "cpu"

        def progress(self, done: int, total: int, message: str) -> None: ...

    image = chest_ct(8)
    image = image.with_pixels(np.full_like(image.pixels, 40))
    settings = {"requests": [{"place": [4.0, 60.0, 36.0]}], "domain": "lung-ct"}
    parameters = {"settings": settings, "leave_out_forbidden": True}
    work = Work(image=image, image_name="0" * 64, parameters=parameters, store=Store(2**30))
    with pytest.raises(PlacementError, match="no lung"):
        compose_job(work, Silent())  # type: ignore[arg-type]


def test_candidates_keep_to_a_zone(stocked: Backend) -> None:
    from Testing.service.images import header_of
    from Testing.service.test_fuzz import phantom

    image = phantom()
    client = stocked.client
    name = client.send_image(image.pixels, header_of(image))
    sides = {}
    for zone in ("left", "right"):
        assert zone in ZONES
        wanted = {"domain": "lung-ct", "count": 6, "quotas": {zone: 6}, "placement": {"temperature": 0.5}}
        job = client.submit("candidates", image=name, parameters=wanted)
        client.wait(job)
        sides[zone] = client.result(job)[0]["places"][:, 2]
    assert sides["right"].max() < 36 <= sides["left"].min(), "the patient's right is the picture's left"
