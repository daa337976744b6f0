"""The danger map by network on phantoms, with a stand-in network that names anatomy by density and place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from HiResMedSynthLib.errors import GeometryError, PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.chest_by_slice import find_regions_by_network
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_ct import danger_network_ct
from HiResMedSynthLib.placement.danger_map import (
    CENTRAL_AIRWAYS,
    CONSOLIDATION,
    LUNG_CLASSES,
    OUTSIDE_BODY,
    PLEURA_MARGIN,
    VESSELS,
    DangerMap,
)
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork, load_network
from HiResMedSynthLib.placement.network_ct import (
    AIRWAY,
    BONE,
    CLASSES,
    FACTS,
    LUNG,
    MEDIASTINUM,
    OUTSIDE,
    SMALLEST_PX,
    TASK,
    WALL,
)
from HiResMedSynthLib.placement.regions_ct import BONE as BONE_NAME
from HiResMedSynthLib.placement.regions_ct import HEART, SOFT_WALL
from HiResMedSynthLib.read import read_image
from Testing.placement.phantoms import chest_ct

PLAN = NetworkPlan(task=TASK, classes=CLASSES, facts=FACTS)


def ellipse(shape: tuple[int, int], row_mm: float, column_mm: float, half: tuple[float, float]) -> NDArray[np.bool_]:
    """An ellipse on the network's grid (which may be padded), millimetres from the middle of the phantom."""
    row, column = (np.mgrid[: shape[0], : shape[1]] + 0.5) * FACTS["pixel_mm"]
    row, column = row - 160 - row_mm, column - 160 - column_mm
    return np.asarray((row / half[0]) ** 2 + (column / half[1]) ** 2 < 1)


def knows_the_phantom(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of someone who knows the anatomy of `chest_ct`, whatever fills its lungs; borders 1 mm too wide."""
    named = np.full(pictures.shape[2:], OUTSIDE)
    shape = named.shape
    named[ellipse(shape, 0, 0, (100, 140))] = WALL
    named[ellipse(shape, 0, 0, (60, 30))] = MEDIASTINUM
    named[ellipse(shape, 75, 0, (15, 15))] = BONE
    named[ellipse(shape, -20, 0, (9, 9))] = AIRWAY
    for side in (-1, 1):
        named[ellipse(shape, 0, 70 * side, (71, 46))] = LUNG
    logits = np.where(named == np.arange(len(CLASSES))[:, np.newaxis, np.newaxis], 4.0, -4.0).astype(np.float32)
    return np.repeat(logits[np.newaxis], len(pictures), axis=0)


def by_density(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of someone who takes all that is dark for lung and all that is not for wall."""
    lung = pictures[:, :1] < 0
    logits = np.full((len(pictures), len(CLASSES), *pictures.shape[2:]), -9.0, dtype=np.float32)
    logits[:, LUNG : LUNG + 1], logits[:, WALL : WALL + 1] = np.where(lung, 5, -5), np.where(lung, -5, 5)
    return logits


NETWORK = PlacementNetwork(PLAN, knows_the_phantom, name="phantom", engine="torch")
DENSITY = PlacementNetwork(PLAN, by_density, name="density", engine="torch")


def name_at(found: DangerMap, row: int, column: int) -> str:
    return found.names.get(int(found.labels[0, row, column]), "permitted")


def with_effusion(image: MedicalImage, hu: int = 10) -> MedicalImage:
    """The right lung of the phantom filled with fluid below its middle."""
    row, column = np.mgrid[:128, :128] * 2.5 - 160.0
    fluid = (((column + 70) / 45) ** 2 + (row / 70) ** 2 < 1) & (row > 20)
    return image.with_pixels(np.where(fluid, np.int16(hu), image.pixels))


@pytest.mark.parametrize("slices", [1, 10])
def test_every_class_is_named_where_it_is(slices: int) -> None:
    found = danger_network_ct(chest_ct(slices, noise_hu=20), margins=Margins(), network=NETWORK)
    assert name_at(found, 2, 2) == OUTSIDE_BODY
    assert name_at(found, 64, 10) == SOFT_WALL
    assert name_at(found, 75, 64) == HEART
    assert name_at(found, 94, 64) == BONE_NAME
    assert name_at(found, 56, 64) == CENTRAL_AIRWAYS
    assert name_at(found, 64, 36) == VESSELS
    assert name_at(found, 80, 36) == "permitted"
    assert found.method.startswith("network phantom")


def test_the_border_of_an_aerated_lung_is_that_of_its_air_and_not_the_networks() -> None:
    image = chest_ct(1)
    regions = find_regions_by_network(image.pixels, spacing_mm=image.spacing_mm, network=NETWORK)
    row, column = np.mgrid[:128, :128] * 2.5 - 160.0
    true = sum(((column - side * 70) / 45) ** 2 + (row / 70) ** 2 < 1 for side in (-1, 1)) > 0
    lungs = regions.lungs[0]
    assert 2 * (lungs & true).sum() / (lungs.sum() + true.sum()) > 0.98
    assert (lungs & ~true).sum() < 0.02 * true.sum()  # closing rounds the corners of pixels


def test_an_effusion_is_a_class_of_its_own_which_the_rule_calls_chest_wall() -> None:
    image = with_effusion(chest_ct(1))
    found = danger_network_ct(image, margins=Margins(), network=NETWORK)
    assert name_at(found, 80, 36) == CONSOLIDATION
    assert name_at(found, 60, 30) == "permitted"
    assert found.region(LUNG_CLASSES)[0, 80, 36]
    ruled = danger(image, domain="lung-ct", margins=Margins())
    assert CONSOLIDATION not in ruled.names.values()
    assert not ruled.region(LUNG_CLASSES)[0, 80, 36]


def test_fat_that_the_network_takes_for_a_filled_lung_is_no_lung() -> None:
    found = danger_network_ct(with_effusion(chest_ct(1), hu=-100), margins=Margins(), network=NETWORK)
    assert name_at(found, 80, 36) == SOFT_WALL
    assert name_at(found, 60, 30) == "permitted"
    pixels = with_effusion(chest_ct(1)).pixels.copy()
    pixels[0, 78:82, 34:38] = -100  # 1 cm2: the HU of fat occur in diseased lungs too
    found = danger_network_ct(chest_ct(1).with_pixels(pixels), margins=Margins(), network=NETWORK)
    assert name_at(found, 80, 36) == CONSOLIDATION


@pytest.mark.parametrize(("hu", "side", "is_lung"), [(-850, 50, True), (-1000, 50, False), (-850, 200, False)])
def test_a_small_crop_that_is_denser_than_air_is_lung(hu: int, side: int, is_lung: bool) -> None:
    def only_air(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.full((len(pictures), len(CLASSES), *pictures.shape[2:]), -9.0, dtype=np.float32)
        logits[:, OUTSIDE] = 5
        return logits

    noise = np.random.default_rng(0).normal(hu, 30, (1, side, side))
    image = MedicalImage(
        pixels=np.rint(noise).astype(np.int16), modality="CT", units="HU", pixel_spacing_mm=(0.6, 0.6),
        spacing_source="header",
    )  # fmt: skip
    network = PlacementNetwork(PLAN, only_air, name="x", engine="torch")
    if is_lung:
        assert not danger_network_ct(image, margins=Margins(), network=network).forbidden()[0, 25, 25]
    else:
        with pytest.raises(PlacementError, match="no lung"):
            danger_network_ct(image, margins=Margins(), network=network)


def test_a_slice_of_abdomen_in_a_chest_has_no_filled_lung() -> None:
    chest = chest_ct(3)
    pixels = chest.pixels.copy()
    pixels[0][pixels[0] < -200] = 40
    pixels[0][chest.pixels[0] == -1000] = -1000
    pixels[0, 50:64, 60:69] = 40  # the trachea
    found = danger_network_ct(chest.with_pixels(pixels), margins=Margins(), network=NETWORK)
    assert CONSOLIDATION not in found.classes_in((slice(0, 1), slice(None), slice(None)))
    assert found.labels[1, 60, 30] == 0
    alone = danger_network_ct(chest.with_pixels(pixels).single_slice(0), margins=Margins(), network=NETWORK)
    assert CONSOLIDATION in alone.classes_in((slice(None), slice(None), slice(None)))  # a white lung could look so


def test_a_vessel_is_no_consolidation() -> None:
    found = danger_network_ct(chest_ct(1), margins=Margins(), network=NETWORK)
    assert CONSOLIDATION not in found.classes_in((slice(None), slice(None), slice(None)))


def test_slices_are_named_one_by_one_and_progress_is_told() -> None:
    image = chest_ct(10)
    told: list[tuple[int, int]] = []
    whole = danger_network_ct(
        image, margins=Margins(), network=NETWORK, progress=lambda done, total: told.append((done, total))
    )
    one = danger_network_ct(image.single_slice(3), margins=Margins(), network=NETWORK)
    assert (whole.labels[3] == one.labels[0]).all()
    assert told == [(8, 10), (10, 10)]


def test_a_shifted_picture_moves_the_mask_with_it() -> None:
    image = chest_ct(1)
    shifted = image.with_pixels(np.roll(image.pixels, (3, -4), axis=(1, 2)))
    found = [danger_network_ct(one, margins=Margins(), network=DENSITY).forbidden()[0] for one in (image, shifted)]
    assert (np.roll(found[0], (3, -4), axis=(0, 1)) == found[1])[8:-8, 8:-8].mean() > 0.995


def test_a_small_crop_is_framed_for_the_network_and_answered_at_its_own_size() -> None:
    seen: list[tuple[int, ...]] = []

    def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(pictures.shape)
        return by_density(pictures)

    crop = np.full((3, 43, 50), -850, dtype=np.int16)
    crop[:, :, 40:] = 40
    image = MedicalImage(
        pixels=crop, modality="CT", units="HU", pixel_spacing_mm=(0.6, 0.6), spacing_source="header",
        slice_thickness_mm=1.0,
    )  # fmt: skip
    found = danger_network_ct(image, margins=Margins(), network=PlacementNetwork(PLAN, run, name="x", engine="torch"))
    assert min(seen[0][2:]) >= SMALLEST_PX
    assert found.labels.shape == crop.shape
    assert found.labels[1, 20, 10] == 0
    assert found.names[int(found.labels[1, 20, 39])] == PLEURA_MARGIN
    assert found.names[int(found.labels[1, 20, 45])] == SOFT_WALL


def test_what_cannot_be_is_refused_with_advice() -> None:
    image = chest_ct(1)
    solid = image.with_pixels(np.full_like(image.pixels, 40))
    with pytest.raises(PlacementError, match=r"no lung.*--domain"):
        danger_network_ct(solid, margins=Margins(), network=DENSITY)
    other = PlacementNetwork(replace(PLAN, task="danger-film"), by_density, name="film", engine="torch")
    with pytest.raises(PlacementError, match=r"film.*lung-ct"):
        danger_network_ct(image, margins=Margins(), network=other)
    with pytest.raises(GeometryError, match="--spacing-mm"):
        danger_network_ct(
            replace(image, pixel_spacing_mm=None, spacing_source="unknown"), margins=Margins(), network=NETWORK
        )
    with pytest.raises(PlacementError, match="Hounsfield"):
        danger_network_ct(replace(image, units="stored"), margins=Margins(), network=NETWORK)


@pytest.mark.parametrize("side_mm", [70, 90, 110])
def test_a_crop_of_lung_is_no_body_in_air(ct_series_folder: Path, side_mm: int) -> None:
    image = read_image(ct_series_folder, slice_index=6)
    lungs = find_chest_regions(image.pixels, spacing_mm=image.spacing_mm).lungs[0]
    side = round(side_mm / image.spacing_mm[1])
    seen = 0
    for row in range(100, 330, 40):
        for column in range(80, 400, 40):
            here = (slice(row, row + side), slice(column, column + side))
            if lungs[here].shape != (side, side) or lungs[here].mean() < 0.5:
                continue
            found = find_regions_by_network(
                image.pixels[:, *here], spacing_mm=image.spacing_mm, network=load_network("danger-ct")
            )
            assert (found.lungs[0] & lungs[here]).sum() > 0.6 * (found.lungs[0] | lungs[here]).sum()
            seen += 1
    assert seen >= 3
