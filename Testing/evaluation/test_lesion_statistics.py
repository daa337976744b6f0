"""Numbers of lesions against balls and discs whose numbers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.evaluation.comparable import Grid
from HiResMedSynthLib.evaluation.image_sets import Loaded
from HiResMedSynthLib.evaluation.lesion_statistics import SIZE, lesion_numbers, numbers_by_name
from HiResMedSynthLib.image import MedicalImage

GRID = Grid(size=(80, 80), resampled=False, window=None, unit="", kind="CT")


def ball(centre: tuple[int, int, int], radius: float) -> np.ndarray:
    axes = np.ogrid[:40, :80, :80]
    return sum((axis - middle) ** 2 for axis, middle in zip(axes, centre, strict=True)) <= radius**2


def scan(lesions: np.ndarray, hu: float) -> MedicalImage:
    """Lungs of -860 HU with grain, the lesions in them, seen with an edge of a millimetre or two."""
    clean = gaussian_filter(np.where(lesions > 0, hu, -860.0), 0.8)
    pixels = clean + np.random.default_rng(0).normal(0, 20, lesions.shape)
    return MedicalImage(
        pixels=pixels.astype(np.int16), modality="CT", units="HU", pixel_spacing_mm=(1.0, 1.0), spacing_source="header",
        slice_thickness_mm=1.0,
    )  # fmt: skip


def test_balls_in_a_ct() -> None:
    lesions = np.zeros((40, 80, 80), np.uint16)
    lesions[ball((20, 25, 25), 6)], lesions[ball((20, 55, 55), 9)] = 1, 2
    one, other = lesion_numbers("ct", "p", Loaded(image=scan(lesions, 40), lesions=lesions), GRID)
    assert one.values[SIZE] == pytest.approx(12, rel=0.02)
    assert other.values[SIZE] == pytest.approx(18, rel=0.02)
    assert other.values["contrast, HU"] == pytest.approx(900, rel=0.02)
    assert other.values["CNR"] == pytest.approx(900 / 20, rel=0.15)
    assert other.values["noise around over inside"] == pytest.approx(1, rel=0.3)
    assert one.historical[SIZE]
    assert set(numbers_by_name([one, other])) == set(one.values)


def test_what_no_nodule_is_lies_outside_the_historical_range() -> None:
    lesions = np.zeros((40, 80, 80), np.uint16)
    lesions[ball((20, 40, 40), 19)] = 1
    (one,) = lesion_numbers("ct", "p", Loaded(image=scan(lesions, 2500), lesions=lesions), GRID)
    assert not one.historical[SIZE]  # 38 mm
    assert not one.historical["contrast, HU"]


def test_a_disc_in_a_film() -> None:
    mask = np.zeros((1, 80, 80), np.uint16)
    mask[0][np.hypot(*(np.mgrid[:80, :80] - 40)) <= 10] = 3
    pixels = (1000 + 500 * gaussian_filter((mask[0] > 0).astype(float), 1.5))[np.newaxis].astype(np.uint16)
    for photometric, shown in (("MONOCHROME2", pixels), ("MONOCHROME1", 4095 - pixels)):
        image = MedicalImage(
            pixels=shown, modality="DX", pixel_spacing_mm=(0.5, 0.5), spacing_source="header", bits_stored=12,
            photometric=photometric,  # type: ignore[arg-type]
        )  # fmt: skip
        (one,) = lesion_numbers("film", "p", Loaded(image=image, lesions=mask), GRID)
        assert one.values[SIZE] == pytest.approx(10, rel=0.03)
        assert one.values["contrast, of the range"] == pytest.approx(500 / 4095, rel=0.15)
        assert one.values["edge width, px"] == pytest.approx(2.56 * 1.5, rel=0.15)
        assert one.historical == {}  # nodules on film have no range on record


def test_an_unmarked_image_and_an_unmeasurable_speck() -> None:
    image = scan(np.zeros((40, 80, 80), np.uint16), 0)
    assert lesion_numbers("ct", "p", Loaded(image=image), GRID) == []
    speck = np.zeros((40, 80, 80), np.uint16)
    speck[20, 40, 40] = 1
    (one,) = lesion_numbers("ct", "p", Loaded(image=image, lesions=speck), GRID)
    assert one.values[SIZE] == pytest.approx((6 / math.pi) ** (1 / 3))
    assert math.isnan(one.values["edge width, mm"])
    assert "edge width, mm" not in one.historical
