"""A vessel that crosses a lesion's place: a solid lesion absorbs it, ground glass lets it show; outside it goes on."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from HiResMedSynthLib.case import HALF, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.tube import filled_share
from HiResMedSynthLib.placement.danger_map import DangerMap
from HiResMedSynthLib.placement.margins import Margins
from Testing.joining.phantom import SPACING_MM, lung

SHAPE = (21, 96, 96)
MIDDLE = (10, 48, 48)
ENHANCED_HU = 250.0  # a vessel with contrast medium: denser than any lesion that isn't calcified
SIGMA_MM = 0.7


def scan(vessel_mm: float) -> NDArray[np.int16]:
    """Lung with a vessel of that diameter along a row of the middle slice."""
    hu = lung(SHAPE, noise_hu=8.0, grain_px=0.6, wall=False).astype(np.float64)
    _, row, _ = MIDDLE
    axis = np.linspace((MIDDLE[0], row, 0), (MIDDLE[0], row, SHAPE[2] - 1), 200)
    share = filled_share([(axis, np.full(200, vessel_mm / 2))], SHAPE, spacing_mm=SPACING_MM, sigma_mm=SIGMA_MM)
    return np.round(hu + share * (ENHANCED_HU - hu)).astype(np.int16)


def crossed(hu: NDArray[np.int16], kind: str) -> tuple[NDArray[np.int16], PlacedLesion]:
    """The scan with a lesion of 12 mm on the vessel, and that lesion."""
    image = MedicalImage(
        pixels=hu, modality="CT", units="HU", pixel_spacing_mm=SPACING_MM[1:], spacing_source="header",
        positions_lps_mm=np.array([[0.0, 0.0, SPACING_MM[0] * k] for k in range(len(hu))]),
    )  # fmt: skip
    nothing = DangerMap(labels=np.zeros(image.shape, np.uint8), names={}, method="rule: nothing is forbidden")
    ground = Ground(image=image, domain="lung-ct", margins=Margins(), danger_map=nothing)
    place = (float(MIDDLE[0]), float(MIDDLE[1]), float(MIDDLE[2]))
    request = LesionRequest(type=kind, size_mm=(12.0, 12.0), place=place)  # type: ignore[arg-type]
    case = draw_case(image, CaseSettings(requests=(request,), domain="lung-ct"), 4, ground=ground)
    return compose(image, case).image.pixels, case.lesions[0]


def along_and_beside(hu: NDArray[np.int16], lesion: PlacedLesion) -> tuple[float, float]:
    """Median HU in the lesion's middle on the vessel's axis, and 3 mm beside it on both sides."""
    core = np.zeros(hu.shape, bool)
    core[lesion.region] = lesion.alpha > 0.97 * 65535
    slice_, row, _ = MIDDLE
    beside = round(3.0 / SPACING_MM[1])
    lines = [hu[slice_, at][core[slice_, at]] for at in (row, row - beside, row + beside)]
    assert min(map(len, lines)) >= 4
    return float(np.median(lines[0])), float(np.median(np.concatenate(lines[1:])))


@pytest.mark.parametrize("vessel_mm", [1.5, 3.0])
def test_a_solid_lesion_absorbs_a_vessel_that_crosses_it(vessel_mm: float) -> None:
    before = scan(vessel_mm)
    after, lesion = crossed(before, "solid")
    on, beside = along_and_beside(after, lesion)
    assert abs(on - beside) < 40
    outside = np.ones(before.shape, bool)
    outside[lesion.region] = lesion.alpha == 0
    assert np.array_equal(after[outside], before[outside])
    _, row, column = MIDDLE
    ends = [int(at) for at in np.flatnonzero((lesion.alpha[MIDDLE[0] - lesion.corner[0]] >= HALF).any(axis=0))]
    left = lesion.corner[2] + ends[0] - round(3.0 / SPACING_MM[2])
    assert after[MIDDLE[0], row, left] >= before[MIDDLE[0], row, left]  # it leads up to the lesion
    assert column > left


@pytest.mark.parametrize("vessel_mm", [1.5, 3.0])
def test_ground_glass_lets_it_show(vessel_mm: float) -> None:
    before = scan(vessel_mm)
    after, lesion = crossed(before, "ground-glass")
    on, beside = along_and_beside(after, lesion)
    vessel = float(np.median(before[MIDDLE[0], MIDDLE[1]]))
    assert -750 < beside < -250
    assert on - beside > 0.7 * (vessel - beside)
    assert on < vessel + 60  # it isn't denser for it
