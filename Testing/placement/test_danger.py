"""The rules of placement on phantoms and on the repository's own CT series and film."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib.errors import GeometryError, PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_map import (
    CENTRAL_AIRWAYS,
    CHEST_WALL,
    CONSOLIDATION,
    MEDIASTINUM,
    OUTSIDE_BODY,
    PELVIS,
    PLEURA_MARGIN,
    SPINE,
    VESSELS,
    DangerMap,
)
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.near import within_mm
from HiResMedSynthLib.placement.regions_ct import MASKS, ChestRegions, components, danger_of_regions
from HiResMedSynthLib.read import read_image
from Testing.placement.phantoms import chest_ct


def name_at(found: DangerMap, slice_index: int, row: int, column: int) -> str:
    label = int(found.labels[slice_index, row, column])
    return found.names.get(label, "permitted")


@pytest.mark.parametrize("noise_hu", [0.0, 60.0])
@pytest.mark.parametrize("slices", [1, 10])
def test_every_class_of_a_chest_ct_is_named_where_it_is(slices: int, noise_hu: float) -> None:
    found = danger(chest_ct(slices, noise_hu=noise_hu), domain="lung-ct", margins=Margins())
    index = slices // 2
    assert name_at(found, index, 2, 2) == OUTSIDE_BODY
    assert name_at(found, index, 64, 10) == CHEST_WALL
    assert name_at(found, index, 75, 64) == MEDIASTINUM
    assert name_at(found, index, 56, 64) == CENTRAL_AIRWAYS
    assert name_at(found, index, 64, 36) == VESSELS
    assert name_at(found, index, 80, 36) == "permitted"
    assert found.method.startswith("rule")


def test_the_blurred_wall_is_pleura_margin_and_a_vessel_that_leaves_it_is_one() -> None:
    hu = np.full((1, 80, 80), 40, np.int16)
    lung = np.zeros((1, 80, 80), bool)
    lung[0, 10:70, 10:70] = True
    hu[lung] = -850
    hu[0, 10:70, 10:12] = -300  # two pixels of the wall's blur count as lung
    hu[0, 30:34, 10:22] = 60  # a vessel runs from there into the lung
    none = np.zeros_like(lung)
    regions = ChestRegions(smooth_hu=hu, body=np.ones_like(lung), lungs=lung, airways=none)
    wish = {"spacing_mm": (5.0, 0.8, 0.8), "margins": Margins(pleura_mm=2.0, vessel_mm=1.0), "method": ""}
    found = danger_of_regions(regions, **wish)  # type: ignore[arg-type]
    assert name_at(found, 0, 55, 10) == name_at(found, 0, 55, 11) == PLEURA_MARGIN
    assert name_at(found, 0, 31, 10) == name_at(found, 0, 31, 16) == VESSELS
    assert name_at(found, 0, 55, 20) == "permitted"


def test_a_consolidation_at_the_pleura_is_one_up_to_the_wall() -> None:
    """Its own rim is as dense as a vessel: what lies within the vessel margin of it is no pleura margin."""
    hu = np.full((1, 80, 80), 40, np.int16)
    lung = np.zeros((1, 80, 80), bool)
    lung[0, 10:70, 10:70] = True
    hu[lung] = -850
    hu[0, 20:60, 10:12] = -300  # blurred wall on which a consolidation lies
    hu[0, 30:50, 12:40] = 30
    hu[0, 36:44, 10:12] = 30
    none = np.zeros_like(lung)
    regions = ChestRegions(smooth_hu=hu, body=np.ones_like(lung), lungs=lung, airways=none, bone=none, mediastinum=none)
    margins = Margins(pleura_mm=2.0, vessel_mm=1.0)
    found = danger_of_regions(regions, spacing_mm=(5.0, 0.8, 0.8), margins=margins, method="")
    assert {name_at(found, 0, row, 11) for row in range(32, 48)} == {CONSOLIDATION}
    assert name_at(found, 0, 24, 10) == PLEURA_MARGIN


@pytest.mark.parametrize("spacing", [(0.4, 0.7, 0.9), (3.0, 0.8, 0.8)])
def test_what_lies_far_from_the_lungs_changes_nothing_within_them(spacing: tuple[float, float, float]) -> None:
    lung = np.zeros((3, 60, 70), bool)
    lung[:, 8:52, 8:62] = True
    lung[1, 40, 30] = False
    hu = np.full(lung.shape, -850, np.int16)
    hu[:, 15:19, 15:40] = 30  # a vessel
    hu[:, 24:48, 36:58] = 30  # a consolidation
    hu[1, 30:40, 8:12] = -990  # a bronchus beside the wall
    hu[:, 26:44, 0:8] = 30
    none = np.zeros_like(lung)
    near = ChestRegions(smooth_hu=hu, body=np.ones_like(lung), lungs=lung, airways=none, bone=none, mediastinum=none)
    held = {name: np.pad(getattr(near, name), ((0, 0), (20, 0), (9, 30))) for name in ("smooth_hu", *MASKS)}
    margins = Margins(pleura_mm=2.0, vessel_mm=1.0)
    small, large = (
        danger_of_regions(regions, spacing_mm=spacing, margins=margins, method="").labels
        for regions in (near, ChestRegions(**held))
    )
    assert np.array_equal(small[:, 4:-4, 4:-4], large[:, 24:-4, 13:-34])
    assert set(np.unique(small)) == {0, 2, 5, 6, 8}


def test_components_come_with_the_box_around_them_within_the_slice() -> None:
    mask = np.zeros((9, 12), bool)
    mask[0:2, 0:3] = mask[2, 3] = mask[5:7, 8] = True
    found = list(components(mask, connectivity=4, around_px=1))
    assert [box for box, _, _ in found] == [np.s_[0:3, 0:4], np.s_[1:4, 2:5], np.s_[4:8, 7:10]]
    assert [area for _, _, area in found] == [6, 1, 2] == [int(piece.sum()) for _, piece, _ in found]
    assert [area for _, _, area in components(mask, connectivity=8)] == [7, 2]


def test_margins_are_millimetres_and_can_be_turned_off() -> None:
    image = chest_ct(1)
    lung = {
        mm: float((~danger(image, domain="lung-ct", margins=Margins(pleura_mm=mm)).forbidden()).sum())
        for mm in (0.0, 2.5, 10.0)
    }
    assert lung[0.0] > lung[2.5] > lung[10.0] > 0
    # a lung of half axes 45 and 70 mm: 10 mm off its rim leaves half axes of about 35 and 60 mm
    assert lung[10.0] / lung[0.0] == pytest.approx(35 * 60 / (45 * 70), abs=0.06)


def test_an_allowed_class_counts_as_permitted_and_no_other() -> None:
    found = danger(chest_ct(1), domain="lung-ct", margins=Margins(pleura_mm=3.0))
    freed = found.forbidden() & ~found.forbidden((PLEURA_MARGIN,))
    assert freed.any()
    assert {found.names[int(label)] for label in np.unique(found.labels[freed])} == {PLEURA_MARGIN}


def test_an_image_without_lung_is_refused_with_advice() -> None:
    image = chest_ct(1)
    without = image.with_pixels(np.where(image.pixels < -700, np.int16(-1000), np.int16(40)))
    solid = without.with_pixels(
        np.where(np.abs(np.arange(128) - 64) < 50, np.int16(40), np.int16(-1000)) + 0 * without.pixels
    )
    with pytest.raises(PlacementError, match=r"no lung.*chest CT.*--domain"):
        danger(solid, domain="lung-ct", margins=Margins())


def test_an_unknown_spacing_is_refused() -> None:
    image = replace(chest_ct(1), pixel_spacing_mm=None, spacing_source="unknown")
    with pytest.raises(GeometryError, match="--spacing-mm"):
        danger(image, domain="lung-ct", margins=Margins())


def test_thick_slices_grow_in_their_plane_and_thin_ones_in_all_directions() -> None:
    mask = np.zeros((5, 21, 21), dtype=bool)
    mask[2, 10, 10] = True
    thick = within_mm(mask, 2.0, spacing_mm=(5.0, 1.0, 1.0))
    assert thick.any(axis=(1, 2)).tolist() == [False, False, True, False, False]
    thin = within_mm(mask, 2.0, spacing_mm=(1.0, 1.0, 1.0))
    assert thin.any(axis=(1, 2)).all()
    assert int(thin.sum()) == 33  # whole-number points within 2 of the origin
    squeezed = within_mm(mask, 2.0, spacing_mm=(5.0, 2.0, 0.5))[2]
    assert (squeezed.any(axis=1).sum(), squeezed.any(axis=0).sum()) == (3, 9)


def test_the_real_series_is_lung_where_it_is_dark(ct_series_folder: Path) -> None:
    image = read_image(ct_series_folder)
    found = danger(image, domain="lung-ct", margins=Margins())
    permitted = ~found.forbidden()
    assert 0.10 < permitted.mean() < 0.17
    assert float(np.median(image.pixels[permitted])) < -750
    assert float((image.pixels[permitted] > -300).mean()) < 0.01  # small vessels
    one = danger(image.single_slice(5), domain="lung-ct", margins=Margins())
    same = (one.labels[0] == 0) == permitted[5]
    assert float(same.mean()) > 0.98  # in-plane rules: one slice finds what the stack finds


def test_the_real_film_has_two_lungs_whatever_its_polarity(cxr_file: Path) -> None:
    image = read_image(cxr_file, spacing_mm=(0.342, 0.4175))
    found = danger(image, domain="cxr", margins=Margins())
    permitted = ~found.forbidden()[0]
    assert 0.2 < permitted.mean() < 0.4
    assert permitted[400, 250]
    assert permitted[400, 760]
    assert not permitted[400, 505]
    assert name_at(found, 0, 400, 505) == MEDIASTINUM
    inverted = replace(image, pixels=image.pixels.max() - image.pixels, photometric="MONOCHROME1")
    other = danger(inverted, domain="cxr", margins=Margins())
    assert float((other.labels == found.labels).mean()) > 0.999


def test_noise_is_no_chest_film() -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (300, 300)).astype(np.uint16)
    image = MedicalImage(pixels=noise, modality="DX", pixel_spacing_mm=(1.0, 1.0), spacing_source="header")
    with pytest.raises(PlacementError, match="no lungs were recognised"):
        danger(image, domain="cxr", margins=Margins())


def test_spine_and_pelvis_of_an_abdominal_film_are_forbidden() -> None:
    row, column = np.mgrid[:400, :350].astype(np.float32)
    film = np.where(np.abs(column - 175) < 150, 1000.0, 0.0)
    film[np.abs(column - 185) < 22] += 400
    for middle in (100, 270):
        radius = np.hypot(column - middle, row - 260)
        film[(np.abs(radius - 40) < 3) & (row < 270)] += 250
    image = MedicalImage(
        pixels=film.astype(np.uint16), modality="DX", pixel_spacing_mm=(1.0, 1.0), spacing_source="header"
    )
    found = danger(image, domain="kub", margins=Margins())
    assert name_at(found, 0, 100, 185) == SPINE
    assert name_at(found, 0, 240, 90) == PELVIS
    assert name_at(found, 0, 150, 110) == "permitted"
    assert name_at(found, 0, 150, 5) == OUTSIDE_BODY
    with pytest.raises(PlacementError, match="too small"):
        danger(replace(image, pixel_spacing_mm=(0.1, 0.1)), domain="kub", margins=Margins())


def test_the_lumen_of_a_bronchus_is_forbidden_in_the_real_series(ct_series_folder: Path) -> None:
    """Found by a first user: air in the right main bronchus was taken for lung."""
    image = read_image(ct_series_folder)
    found = danger(image, domain="lung-ct", margins=Margins())
    assert found.labels[6, 303, 243] != 0
    air = image.pixels[6, 285:320, 225:260] < -970
    assert (found.labels[6, 285:320, 225:260][air] != 0).mean() > 0.8
    one = danger(read_image(ct_series_folder, slice_index=6), domain="lung-ct", margins=Margins())
    assert one.labels[0, 303, 243] != 0


def test_the_heart_is_forbidden_on_the_real_film(cxr_file: Path) -> None:
    film = read_image(cxr_file, spacing_mm=(0.342, 0.4175))
    found = danger(film, domain="cxr", margins=Margins())
    assert found.labels[0, 620, 640] != 0
    assert 0.15 < (found.labels == 0).mean() < 0.4
