"""What makes a preview quick changes no pixel: forms drawn before are reused, and patches equal the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.compose import compose, compose_patches
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.ground import prepare_ground
from Testing.placement.phantoms import chest_ct

SETTINGS = CaseSettings(
    requests=(
        LesionRequest(place=(4.0, 60.0, 30.5), size_mm=(18, 18), seed=1),
        LesionRequest(place=(6.0, 74.25, 92.0), size_mm=(16, 16), seed=2),
    ),
    min_distance_mm=1.0,
)


def same(one, other) -> bool:
    return all(
        (a.alpha == b.alpha).all() and (a.intensity == b.intensity).all() and a.corner == b.corner
        for a, b in zip(one.lesions, other.lesions, strict=True)
    )


def test_a_form_that_was_drawn_before_gives_the_same_lesion() -> None:
    image = chest_ct(noise_hu=15)
    ground = prepare_ground(image)
    first = draw_case(image, SETTINGS, 3, ground=ground)
    assert len(ground.shapes) == 2
    assert same(draw_case(image, SETTINGS, 3, ground=ground), first)
    assert same(draw_case(image, SETTINGS, 3), first)
    moved = replace(SETTINGS.requests[0], place=(4.0, 58.0, 31.5), contrast=(300, 300))
    settings = replace(SETTINGS, requests=(moved, SETTINGS.requests[1]))
    again = draw_case(image, settings, 3, ground=ground)
    assert len(ground.shapes) == 2, "moved by whole voxels: not rendered again"
    assert same(again, draw_case(image, settings, 3))
    assert again.lesions[0].contrast != first.lesions[0].contrast
    draw_case(image, settings, 4, ground=ground)
    assert len(ground.shapes) == 4, "another seed is another form"


def test_patches_are_what_compose_writes() -> None:
    image = chest_ct(noise_hu=15)
    case = draw_case(image, SETTINGS, 3)
    whole = compose(image, case).image.pixels
    patches = compose_patches(image, case)
    assert set(patches) == {1, 2}
    for lesion in case.lesions:
        assert np.array_equal(patches[lesion.number], whole[lesion.region])
