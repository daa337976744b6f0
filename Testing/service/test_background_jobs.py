"""The jobs generate and reconstruct through a real backend, with an untrained model in its store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from HiResMedSynthLib import weights
from HiResMedSynthLib.background import make
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.service.client import BackendError
from HiResMedSynthLib.service.messages import image_from
from HiResMedSynthLib.service.protocol import JobKind
from Testing.background.tiny_cascade import add_tiny
from Testing.export.cases import ct_image
from Testing.service.conftest import Backend, start
from Testing.service.images import header_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundModel]:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        yield add_tiny(folder, name="ours")


@pytest.fixture(scope="module")
def own_backend(model: BackgroundModel) -> Iterator[Backend]:
    running = start()
    yield running
    assert running.process.poll() is None, "the backend died during the tests"
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(timeout=20) == 0


def done(backend: Backend, kind: JobKind, image: str | None = None, **parameters: Any) -> tuple[dict, Any, str]:
    client = backend.client
    job = client.submit(kind, image=image, parameters=parameters)
    notes = " ".join(client.wait(job).notes)
    return (*client.result(job), notes)


def test_films_over_the_wire_equal_those_of_the_library(own_backend: Backend, model: BackgroundModel) -> None:
    arrays, told, notes = done(own_backend, "generate", model="ours", count=2, seed=3, sex="M", size=64)
    assert told["domain"] == "cxr"
    assert told["model"] == model.identity
    assert "no descriptors" in notes
    assert [one["seed"] for one in told["images"]] == [3, 4]
    for number, one in enumerate(told["images"], start=1):
        image = image_from(arrays[f"{number}.pixels"], one["header"])
        own = make.generate(model, seed=one["seed"], sex="M", size=64).image
        np.testing.assert_array_equal(image.pixels, own.pixels)
        assert image.pixel_spacing_mm == pytest.approx(own.pixel_spacing_mm)
        assert image.facts.burned_in_annotation == "NO"


def assert_nearly_equal(made: NDArray[Any], own: NDArray[Any]) -> None:
    """Equal but for the last bit of float32: another process may add up in another order."""
    assert made.dtype == own.dtype
    assert np.abs(made.astype(np.int64) - own.astype(np.int64)).max() <= 2


def test_an_image_is_varied_and_rebuilt(own_backend: Backend, model: BackgroundModel, cxr_file: Path) -> None:
    film = read_image(cxr_file, spacing_mm=(0.342, 0.4175))
    name = own_backend.client.send_image(film.pixels, header_of(film))
    arrays, told, _ = done(own_backend, "generate", image=name, model="ours", strength=0.5)
    own = make.generate(model, seed=0, like=film, strength=0.5).image
    assert_nearly_equal(arrays["1.pixels"], own.pixels)
    arrays, told, notes = done(own_backend, "reconstruct", image=name, model="ours", seed=2)
    back = image_from(arrays["pixels"], told["header"])
    assert_nearly_equal(back.pixels, make.reconstruct(model, film, seed=2).image.pixels)
    assert back.shape == film.shape
    assert "codes" in notes


def test_one_slice_of_a_volume_is_taken(own_backend: Backend) -> None:
    volume = ct_image(pixels=np.random.default_rng(0).integers(-1000, 400, (7, 40, 40)).astype(np.int16))
    name = own_backend.client.send_image(volume.pixels, header_of(volume))
    arrays, _, notes = done(own_backend, "reconstruct", image=name, model="ours", slice_index=2)
    assert arrays["pixels"].shape == (1, 40, 40)
    assert "expect no likeness" in notes
    for parameters, words in (({}, "7 slices"), ({"slice_index": 9}, "slice 9")):
        for kind in ("generate", "reconstruct"):
            with pytest.raises(BackendError, match=words):
                done(own_backend, kind, image=name, model="ours", **parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "parameters", "words"),
    [
        ("generate", {"domain": "kub"}, "no model that makes kub"),
        ("generate", {"model": "../../etc/passwd"}, "can't name a model"),
        ("generate", {"model": "ours", "count": 17}, "count"),
        ("generate", {"model": "ours", "seed": -1}, "seed"),
        ("generate", {"model": "ours", "seed": 2**60}, "seed"),
        ("generate", {"model": "ours", "sex": "X"}, "sex"),
        ("generate", {"model": "ours", "strength": float("nan")}, "strength"),
        ("generate", {"model": "ours", "size": 8}, "size of 8"),
        ("generate", {"model": "ours", "out": "/tmp/x"}, "no parameter out"),
        ("reconstruct", {"model": "ours"}, "needs an image"),
        ("reconstruct", {"model": "nothing"}, "needs an image"),
    ],
)
def test_impossible_jobs_are_refused(
    own_backend: Backend, kind: JobKind, parameters: dict[str, Any], words: str
) -> None:
    with pytest.raises(BackendError, match=words) as refused:
        done(own_backend, kind, **parameters)
    assert "bug" not in str(refused.value)


def test_a_job_that_is_cancelled_before_an_image_is_made_has_no_result(own_backend: Backend) -> None:
    client = own_backend.client
    busy = client.submit("generate", parameters={"model": "ours", "count": 4})
    job = client.submit("generate", parameters={"model": "ours", "count": 16})
    client.cancel(job)  # it waits for the one before
    with pytest.raises(BackendError, match=r"(?i)cancel"):
        client.wait(job)
    client.wait(busy)
    assert done(own_backend, "generate", model="ours", size=32)[0]["1.pixels"].shape == (1, 32, 32)


def test_a_cancelled_job_keeps_the_images_that_are_made(own_backend: Backend, model: BackgroundModel) -> None:
    client = own_backend.client
    job = client.submit("generate", parameters={"model": "ours", "count": 16, "seed": 5, "size": 64})
    while client.status(job).done < 2:
        pass
    client.cancel(job)
    status = client.wait(job)
    arrays, told = client.result(job)
    made = len(told["images"])
    assert 2 <= made < 16 == told["asked"]
    assert f"cancelled: {made} of 16 images were made" in status.notes
    assert [one["seed"] for one in told["images"]] == list(range(5, 5 + made))
    np.testing.assert_array_equal(arrays["2.pixels"], make.generate(model, seed=6, size=64).image.pixels)
