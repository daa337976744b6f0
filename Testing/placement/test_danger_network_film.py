"""The danger map of films by a network: with a stand-in network that knows what it is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from HiResMedSynthLib.errors import GeometryError, PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_map import (
    BESIDE_HEART,
    LUNG_CLASSES,
    MEDIASTINUM,
    OUTSIDE_LUNGS,
    PELVIS,
    PLEURA_MARGIN,
    SPINE,
)
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork
from HiResMedSynthLib.placement.regions_film import (
    CHANNELS,
    SHORT_PX,
    STRUCTURES,
    TASK,
    at_work_size,
    danger_network_film,
    film_channels,
    find_film_regions,
    wide_blur,
)
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.weights import ModelError
from Testing.placement.phantoms import chest_ct

PLAN = NetworkPlan(task=TASK, classes=STRUCTURES, channels=CHANNELS)
LUNG_GREY, HEART_GREY, RIB_GREY, WALL_GREY = 40, 120, 160, 200
NO_MARGIN = Margins(pleura_mm=0.0)


@pytest.fixture(autouse=True)
def phantoms_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The phantom's lungs are ellipses: they share little with people's."""
    monkeypatch.setattr("HiResMedSynthLib.placement.regions_film.LEAST_SHARED", 0.3)


def by_grey(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of a network that reads the phantom's greys off the first channel."""
    grey = (pictures[:, 0] + 1) / 2 * (WALL_GREY - LUNG_GREY) + LUNG_GREY

    def near(value: float) -> NDArray[np.float32]:
        return np.asarray(10 - np.abs(grey - value) / 2, dtype=np.float32)

    lungs = np.maximum(np.maximum(near(LUNG_GREY), near(RIB_GREY)), near(HEART_GREY))
    nothing = np.full_like(lungs, -9.0)
    # the blurred rim of a lung has the heart's grey as well, but is thin
    heart = np.stack([cv2.morphologyEx(one, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)) for one in near(HEART_GREY)])
    return np.stack([lungs, heart, near(RIB_GREY), nothing, nothing, nothing, nothing + 18], axis=1)


def told(run: Callable[[NDArray[np.float32]], NDArray[np.float32]] = by_grey, *, own: bool = False) -> PlacementNetwork:
    return PlacementNetwork(PLAN, run, name="danger-film", engine="torch", own=own)


def chest_film(rows: int = 384, columns: int = 384) -> MedicalImage:
    """Two dark lungs, a heart over the left one, a rib over the right one; 1 mm pixels, the long side in rows."""
    row, column = np.mgrid[:rows, :columns].astype(np.float32)
    row, column = row * 384 / rows - 192, column * 384 / columns - 192
    film = np.full((rows, columns), WALL_GREY, np.uint16)
    for side in (-1, 1):
        film[((column - side * 95) / 65) ** 2 + (row / 130) ** 2 < 1] = LUNG_GREY
    lungs = film == LUNG_GREY
    film[lungs & (np.hypot(column - 60, row - 60) < 45)] = HEART_GREY
    film[lungs & (column < 0) & (np.abs(row + 40) < 10)] = RIB_GREY
    return MedicalImage(pixels=film[np.newaxis], modality="DX", pixel_spacing_mm=(1.0, 1.0), spacing_source="header")


def test_classes_are_named_where_they_are() -> None:
    image = chest_film()
    found = danger_network_film(image, domain="cxr", margins=Margins(pleura_mm=6.0), network=told())

    def name(row: int, column: int) -> str:
        return found.names.get(int(found.labels[0, row, column]), "permitted")

    assert name(192, 97) == "permitted"
    assert name(152, 97) == "permitted"  # a nodule may lie over a rib
    assert name(5, 5) == OUTSIDE_LUNGS
    assert name(240, 250) == MEDIASTINUM  # over the lung
    assert name(192, 192) == MEDIASTINUM  # between the lungs
    assert name(192, 35) == PLEURA_MARGIN
    assert name(192, 45) == "permitted"
    assert found.method.startswith("network danger-film")


def test_any_size_and_squeezed_pixels_give_the_same_anatomy() -> None:
    one = danger_network_film(chest_film(), domain="cxr", margins=NO_MARGIN, network=told()).forbidden()[0]
    squeezed = replace(chest_film(768, 300), pixel_spacing_mm=(0.5, 1.28))
    other = danger_network_film(squeezed, domain="cxr", margins=NO_MARGIN, network=told()).forbidden()[0]
    assert other.shape == (768, 300)
    assert abs(float(one.mean()) - float(other.mean())) < 0.06  # blurred edges have the grey of the heart
    assert at_work_size(chest_film(900, 600).pixels[0].astype(np.float32), (1.0, 1.0)).shape == (288, SHORT_PX)


def test_the_mask_moves_with_the_film_and_polarity_is_no_matter() -> None:
    image = chest_film()
    still = danger_network_film(image, domain="cxr", margins=NO_MARGIN, network=told()).labels[0]
    down = image.with_pixels(np.roll(image.pixels, 16, axis=1))
    moved = danger_network_film(down, domain="cxr", margins=NO_MARGIN, network=told()).labels[0]
    assert float((moved == np.roll(still, 16, axis=0)).mean()) > 0.99
    dark = replace(image, pixels=image.pixels.max() - image.pixels, photometric="MONOCHROME1")
    other = danger_network_film(dark, domain="cxr", margins=NO_MARGIN, network=told()).labels[0]
    assert float((other == still).mean()) > 0.99


def test_holes_are_filled_and_crumbs_left_out() -> None:
    image = chest_film()
    pixels = image.pixels.copy()
    pixels[0, 180:190, 90:100] = WALL_GREY  # a dense nodule
    pixels[0, 2:8, 2:8] = LUNG_GREY  # air beside the patient
    lungs = find_film_regions(image.with_pixels(pixels), told()).lungs()
    assert lungs[185, 95]
    assert not lungs[5, 5]


def test_lung_is_permitted_where_it_is_sure_and_off_the_heart() -> None:
    image = chest_film()

    def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = by_grey(pictures)
        logits[:, 0, :60] = np.minimum(logits[:, 0, :60], 0.5)  # more likely lung than not, no more
        return logits

    regions = find_film_regions(image, told(run))
    assert regions.lungs(above=0.5)[100, 287]
    assert not regions.lungs()[100, 287]
    assert regions.lungs()[150, 287]
    found = danger_network_film(image, domain="cxr", margins=NO_MARGIN, network=told())
    row, column = np.mgrid[:384, :384] - 192.0
    away = np.hypot(column - 60, row - 60) - 45
    lung = ((column - 95) / 65) ** 2 + (row / 130) ** 2 < 0.9
    beside = lung & (away > 1) & (away < 4)  # 2 % of 320 mm is 6.4 mm
    assert (found.labels[0][beside] != 0).all()
    assert found.classes_in((slice(None), slice(None), slice(None)), beside[np.newaxis])[0] in (
        BESIDE_HEART,
        MEDIASTINUM,
    )
    assert found.region(LUNG_CLASSES)[0][lung & (away > 4)].mean() > 0.95
    assert found.forbidden((PLEURA_MARGIN,))[0][beside].all()  # a juxtapleural lesion keeps off it too
    assert (found.labels[0][lung & (away > 11)] == 0).mean() > 0.95


@pytest.mark.parametrize("case", ["none", "unsure", "crumbs", "strip"])
def test_what_is_no_chest_film_is_refused(case: str) -> None:
    image = chest_film()
    if case == "strip":
        image = replace(image, pixel_spacing_mm=(1.0, 5.0))
    noise = np.random.default_rng(0)

    def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = by_grey(pictures)
        if case == "unsure":
            logits[:, 0] = np.minimum(logits[:, 0], 0.4)
            return logits
        logits[:, 0] = -5.0 if case == "none" else np.where(noise.random(logits[:, 0].shape) < 0.3, 4.0, -4.0)
        return logits

    of_film = r"recognised on this film.*(--domain|spacing)"
    with pytest.raises(PlacementError, match=of_film):
        danger_network_film(image, domain="cxr", margins=NO_MARGIN, network=told(run))
    told_of_own = of_film if case == "strip" else r"the model 'danger-film'.*on this film.*--danger rule"
    with pytest.raises(PlacementError, match=told_of_own):
        danger_network_film(image, domain="cxr", margins=NO_MARGIN, network=told(run, own=True))


def test_a_model_of_the_users_own_is_named_where_its_lungs_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("HiResMedSynthLib.placement.regions_film.LEAST_SHARED", 1.1)
    with pytest.raises(PlacementError, match=r"the model 'danger-film'.*mean lung shape share.*--danger rule"):
        danger_network_film(chest_film(), domain="cxr", margins=NO_MARGIN, network=told(own=True))


def test_another_network_a_ct_and_an_unknown_spacing_are_refused() -> None:
    other = PlacementNetwork(replace(PLAN, task="danger-ct"), by_grey, name="danger-ct", engine="torch")
    with pytest.raises(ModelError, match="danger-ct"):
        danger_network_film(chest_film(), domain="cxr", margins=NO_MARGIN, network=other)
    with pytest.raises(PlacementError, match="a CT is no film"):
        danger_network_film(chest_ct(1), domain="cxr", margins=NO_MARGIN, network=told())
    unknown = replace(chest_film(), pixel_spacing_mm=None, spacing_source="unknown")
    with pytest.raises(GeometryError, match="--spacing-mm"):
        danger_network_film(unknown, domain="cxr", margins=NO_MARGIN, network=told())


def test_an_abdominal_film_keeps_its_rule_and_gains_what_the_network_sees() -> None:
    _, column = np.mgrid[:400, :350].astype(np.float32)
    film = np.where(np.abs(column - 175) < 150, 1000.0, 0.0)
    film[np.abs(column - 185) < 22] += 400
    image = MedicalImage(
        pixels=film.astype(np.uint16)[np.newaxis], modality="DX", pixel_spacing_mm=(1.0, 1.0), spacing_source="header"
    )

    def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.full((len(pictures), len(STRUCTURES), *pictures.shape[2:]), -9.0, np.float32)
        logits[:, STRUCTURES.index("spine"), 20:40] = 9.0
        logits[:, STRUCTURES.index("pelvis and hips"), 60:70] = 9.0
        return logits

    rule = danger(image, domain="kub", margins=Margins())
    found = danger_network_film(image, domain="kub", margins=Margins(), network=told(run))
    assert (found.forbidden() | ~rule.forbidden()).all()
    where_ruled = rule.forbidden()
    assert np.array_equal(found.labels[where_ruled], rule.labels[where_ruled])
    gained = {found.names[int(label)] for label in np.unique(found.labels[~where_ruled & found.forbidden()])}
    assert gained == {SPINE, PELVIS}


def test_channels_do_not_depend_on_the_scale_of_grey() -> None:
    film = np.random.default_rng(0).normal(0, 1, (192, 200)).astype(np.float32).cumsum(axis=1)
    one, other = film_channels(film), film_channels(1000 + 37 * film)
    assert one.shape == (CHANNELS, 192, 200)
    assert np.abs(one - other).max() < 1e-3
    assert np.allclose(wide_blur(np.full((50, 60), 3.0, np.float32), 16.0), 3.0)


def test_lungs_where_no_person_has_them_are_refused(cxr_file: Path) -> None:
    image = read_image(cxr_file, spacing_mm=(0.342, 0.4175))

    def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.full((len(pictures), len(STRUCTURES), *pictures.shape[2:]), -9.0, np.float32)
        logits[:, 0, -60:] = 9.0
        return logits

    with pytest.raises(PlacementError, match="share"):
        danger_network_film(image, domain="cxr", margins=NO_MARGIN, network=told(run))
    assert find_film_regions(image, told(run)).seen("body").shape == (image.rows, image.columns)
