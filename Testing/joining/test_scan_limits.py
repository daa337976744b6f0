"""A CT that was cut off by a window: seen, said, and its lesions cut too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.joining.scan_limits import scan_limits
from HiResMedSynthLib.placement.method import PlacementMethod
from Testing.placement.phantoms import chest_ct


def test_values_that_pile_up_at_an_end_were_cut() -> None:
    hu = np.random.default_rng(0).normal(-500, 300, (4, 64, 64)).astype(np.int16)
    assert scan_limits(hu).warnings == ()
    found = scan_limits(np.clip(hu, -900, 200))
    assert (found.floor_hu, found.ceiling_hu) == (-900, 200)
    assert "cut at 200 HU" in found.warnings[0] and "cut at -900 HU" in found.warnings[1]
    assert found.cut(np.array([-1000.0, 0.0, 800.0])).tolist() == [-900.0, 0.0, 200.0]
    assert scan_limits(np.clip(hu, -1024, 3071)).warnings == ()


def test_a_calcified_lesion_is_no_denser_than_its_scan_can_show() -> None:
    whole = chest_ct(8, 256, slice_mm=2.5, noise_hu=12)
    image = whole.with_pixels(np.clip(whole.pixels, -1000, 40))
    settings = CaseSettings(
        requests=(LesionRequest(type="calcified", size_mm=(10, 14)),), placement=PlacementMethod(danger="rule")
    )
    case = draw_case(image, settings, seed=2)
    assert any("cut at 40 HU" in text for text in case.background.oddities)
    assert int(compose(image, case).image.pixels.max()) == 40
    blended = draw_case(image, replace(settings, fusion="alpha"), seed=2)
    assert int(compose(image, blended).image.pixels.max()) > 300
