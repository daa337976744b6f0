"""Lesions in MR: where the body is, a contrast that is asked for and reached, and what is written refers to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from HiResMedSynthLib import measure
from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.case_file import read_case, write_case
from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.edge_profile import edges
from HiResMedSynthLib.errors import HiResMedSynthError, PlacementError, SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion_in_mr import TYPE_NOTE
from HiResMedSynthLib.placement.rule_mr import danger_mr
from HiResMedSynthLib.placement.zones import zone_mask
from HiResMedSynthLib.read import read_image
from Testing.export.cases import mr_image
from Testing.slices import MR, write_stack

SHAPE = (8, 96, 112)
BODY, CAVITY = 300.0, 4.0


def phantom(*, scale: float = 1.0, offset: float = 0.0) -> MedicalImage:
    """An ellipse of tissue with a dark cavity, in air with an MR's noise (Rician)."""
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    body = ((rows - 48) / 40) ** 2 + ((columns - 56) / 46) ** 2 < 1
    cavity = (rows - 40) ** 2 + (columns - 40) ** 2 < 36
    signal = np.where(body & ~cavity, BODY + columns / 2, np.where(cavity, CAVITY, 0.0))
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 6, (2, *SHAPE))
    values = np.hypot(signal + noise[0], noise[1]) * scale + offset
    return mr_image(
        pixels=values.astype(np.uint16), bits_stored=16, slice_thickness_mm=2.5, pixel_spacing_mm=(0.9, 0.9),
        positions_lps_mm=np.array([[0.0, 0.0, 2.5 * k] for k in range(SHAPE[0])]),
    )  # fmt: skip


def wish(**changes: object) -> CaseSettings:
    request = LesionRequest(size_mm=(9, 11), bank_entry="solid-11mm-c", contrast=(120, 120))
    return CaseSettings(requests=(replace(request, **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize("image", [phantom(), phantom(scale=90, offset=7000)], ids=["12 bits", "16 bits, offset"])
def test_the_body_is_told_from_air_and_its_cavities_belong_to_it(image: MedicalImage) -> None:
    body = ~danger_mr(image).forbidden()
    assert body[:, 40, 40].all()  # the cavity
    assert body[:, 48, 20:92].all()
    assert not body[:, :5].any()
    assert not body[:, :, :6].any()


def test_a_picture_full_of_tissue_holds_no_air() -> None:
    tissue = np.random.default_rng(3).normal(400, 60, (1, 64, 64)).astype(np.uint16)
    assert not danger_mr(phantom().single_slice(0)).forbidden().all()
    assert not danger_mr(mr_image(pixels=tissue, positions_lps_mm=np.zeros((1, 3)))).forbidden().any()
    with pytest.raises(PlacementError, match="all values of this MR are the same"):
        danger_mr(mr_image(pixels=np.full((1, 8, 8), 9, np.uint16), positions_lps_mm=np.zeros((1, 3))))


@pytest.mark.parametrize("scale", [1.0, 90.0])
@pytest.mark.parametrize("contrast", [120.0, -120.0])
def test_the_contrast_asked_for_is_reached_whatever_the_values(contrast: float, scale: float, tmp_path: Path) -> None:
    image = phantom(scale=scale)
    asked = contrast * scale
    case = draw_case(image, wish(contrast=(asked, asked), place=(4.0, 52.0, 66.0)), 5)
    composed = compose(image, case)
    inside, changed = composed.instance_mask > 0, composed.alpha > 0
    assert np.array_equal(composed.image.pixels[~changed], image.pixels[~changed])
    reached = composed.image.pixels[inside].mean() - case.lesions[0].details["surroundings"]
    assert reached == pytest.approx(asked, abs=0.05 * abs(asked))
    assert case.lesions[0].contrast == pytest.approx(asked, rel=0.01)
    assert (case.settings.domain, case.settings.fusion) == ("mr", "better")
    write_case(case, tmp_path)
    assert np.array_equal(compose(image, read_case(tmp_path)).image.pixels, composed.image.pixels)


@pytest.mark.parametrize("cavity", [0, -40], ids=["magnitude", "with values below zero"])
def test_no_lesion_is_darker_than_an_mr_can_be_and_what_lacks_is_told(cavity: int) -> None:
    image = phantom()
    pixels = image.pixels.astype(np.int16)
    pixels[:, 2, 2] = cavity
    image = replace(image, pixels=pixels, stored_signed=True)
    case = draw_case(image, wish(contrast=(-500, -450), place=(4.0, 52.0, 66.0)), 5)
    composed = compose(image, case).image.pixels
    (lesion,) = case.lesions
    told = [text for text in case.background.oddities if "where -500 to -450 was asked for" in text]
    if cavity == 0:
        assert composed.min() == 0
        assert lesion.contrast > -lesion.details["surroundings"]
        assert f"has a contrast of {lesion.contrast:.4g}" in told[0]
    else:
        assert lesion.contrast == pytest.approx(-475, abs=25)
        assert told == []


def test_one_without_contrast_is_told() -> None:
    case = draw_case(phantom(), wish(contrast=(0, 0), size_mm=(2, 2), place=(4.0, 52.0, 66.0)), 5)
    thin, unseen = (text for text in case.background.oddities if text.startswith("lesion 1"))
    assert "where a real one would show fainter" in thin
    assert "it can't be seen, though mask and boxes tell it" in unseen


def two_tissues(*, noise: float, blur_px: float = 1.2) -> MedicalImage:
    """Dark tissue on the left, bright on the right, blurred by the scanner; its noise is coarser than a pixel."""
    rng = np.random.default_rng(8)
    rows, columns = np.mgrid[:120, :120]
    body = (rows - 60) ** 2 + (columns - 60) ** 2 < 52**2
    signal = gaussian_filter(np.where(body, np.where(columns > 60, 350.0, 150.0), 0.0), blur_px)
    grain = gaussian_filter(rng.normal(0, 1, (2, 13, 120, 120)), (0, 0, 0.7, 0.7))
    grain *= noise / grain.std()
    return mr_image(
        pixels=np.hypot(signal + grain[0], grain[1]).astype(np.uint16), bits_stored=16, slice_thickness_mm=2.0,
        pixel_spacing_mm=(0.7, 0.7), positions_lps_mm=np.array([[0.0, 0.0, 2.0 * k] for k in range(13)]),
    )  # fmt: skip


@pytest.mark.parametrize("fusion", ["better", "alpha"])
@pytest.mark.parametrize("contrast", [120.0, -80.0])
def test_where_tissues_meet_the_contrast_told_is_that_of_the_composed_pixels(contrast: float, fusion: str) -> None:
    image = two_tissues(noise=6)
    for column in (35.0, 61.0):
        settings = replace(wish(contrast=(contrast, contrast), place=(6.0, 60.0, column)), fusion=fusion)  # type: ignore[arg-type]
        case = draw_case(image, settings, 5)
        (lesion,) = case.lesions
        composed = compose(image, case)
        around = measure.ring(composed.alpha > 0, spacing_mm=image.spacing_mm, inner_mm=1.5, outer_mm=6.0)
        seen = composed.image.pixels[composed.instance_mask > 0].mean() - np.median(composed.image.pixels[around])
        assert lesion.contrast == pytest.approx(contrast, abs=1)
        assert seen == pytest.approx(lesion.contrast, abs=4)  # of slices farther off the product sees less
        said = any("lies where tissues meet" in text for text in case.background.oddities)
        assert said == (column > 40)


def test_a_lesion_has_the_noise_the_grain_and_the_sharpness_of_its_mr() -> None:
    image = two_tissues(noise=8)
    ground = prepare_ground(image)
    assert ground.resolution.edge_width_mm == pytest.approx(2.563 * 1.2 * 0.7, rel=0.15)
    place = (6.0, 60.0, 38.0)

    def looks(fusion: str, contrast: float) -> tuple[float, float]:
        """Fine SD deep inside the lesion over that of the tissue it lies in; width of its edge in mm."""
        wanted = wish(bank_entry="solid-13mm-a", place=place, contrast=(contrast, contrast), size_mm=(15, 15))
        composed = compose(image, draw_case(image, replace(wanted, fusion=fusion), 4, ground=ground))  # type: ignore[arg-type]
        inside = composed.instance_mask > 0
        deep = binary_erosion(inside, np.ones((1, 5, 5)))
        fine = [
            pixels - gaussian_filter(pixels, (0, 1.5, 1.5))
            for pixels in (composed.image.pixels.astype(float), image.pixels.astype(float))
        ]
        rim = edges(composed.image.pixels[6], inside[6], spacing_mm=(0.7, 0.7))
        return float(fine[0][deep].std() / fine[1][deep].std()), float(np.median(rim.width_mm))

    noisy, flat = looks("better", 40)[0], looks("alpha", 40)[0]  # so faint a lesion has hardly any texture of its own
    assert flat < 0.6
    assert noisy == pytest.approx(1.0, abs=0.2)
    _, width = looks("better", 300)
    assert width == pytest.approx(ground.resolution.usual_width_mm, rel=0.35)


def test_a_type_asked_for_in_an_mr_is_told_to_mean_little() -> None:
    image = phantom()
    told = draw_case(image, wish(type="solid", bank_entry=None), 1).background.oddities
    assert TYPE_NOTE in told
    assert TYPE_NOTE not in draw_case(image, wish(), 1).background.oddities


def test_places_are_drawn_all_over_the_body_and_in_it_alone() -> None:
    image = phantom()
    ground = prepare_ground(image)
    heat = ground.heat()
    assert np.unique(heat[heat > 0]).size == 1
    assert "the same everywhere in the body" in ground.method
    assert ground.warnings == ()
    for seed in range(3):
        (lesion,) = draw_case(image, wish(cnr=(8, 9), contrast=None), seed, ground=ground).lesions
        assert not ground.forbidden()[lesion.region][lesion.alpha > 0].any()
        assert 8 <= lesion.cnr <= 9


@pytest.mark.parametrize(
    ("image", "settings", "said"),
    [
        (phantom(), wish(contrast=None), r"tell its contrast.*--contrast LOW:HIGH.*holds 3\d\d to 3\d\d here"),
        (phantom(), wish(sizes="history"), "sizes of real lesions in MR are not on record"),
        (phantom(), wish(type="stone", bank_entry=None), "doesn't belong into a picture of domain mr"),
        (phantom(), wish(type="juxtapleural", bank_entry=None), "pleura isn't known in an MR"),
        (phantom(), wish(zone="left"), "parts of an MR aren't known"),
        (phantom(scale=0.02), wish(), "too few for a lesion in whole steps"),
        (phantom(), wish(place=(4.0, 14.0, 14.0)), "would touch: outside the body"),
        (replace(phantom(), modality="DX"), replace(wish(), domain="mr"), "this is no MR"),
        (phantom(), replace(wish(), domain="lung-ct"), "--domain mr for an MR"),
    ],
)
def test_what_an_mr_can_t_have_is_refused(image: MedicalImage, settings: CaseSettings, said: str) -> None:
    with pytest.raises(HiResMedSynthError, match=said):
        draw_case(image, settings, 1)


def test_an_mr_of_which_nothing_is_permitted_is_refused() -> None:
    image = phantom()
    found = danger_mr(image)
    closed = replace(found, labels=np.full_like(found.labels, max(found.names)))
    ground = replace(prepare_ground(image), danger_map=closed)
    with pytest.raises(PlacementError, match="no tissue of this image is permitted"):
        draw_case(image, wish(), 1, ground=ground)


def test_zones_of_an_mr_are_refused_by_the_library_too() -> None:
    ground: Ground = prepare_ground(phantom())
    with pytest.raises(PlacementError, match="parts of an MR"):
        zone_mask(ground.image, ground.danger_map, "left", domain="mr")
    with pytest.raises(SettingsError, match="forbidden on a chest CT, not what is forbidden on an MR"):
        prepare_ground(phantom(), placement=replace(ground.placement, danger="danger-ct"))


def test_an_mr_series_becomes_an_mr_series_with_seg_and_report(tmp_path: Path) -> None:
    image = phantom()
    write_stack(
        tmp_path / "in", image.pixels, [2.5 * k for k in range(SHAPE[0])], modality="MR", sop_class=MR,
        ScanningSequence="SE", SequenceVariant="SK", PixelSpacing=[0.9, 0.9], SliceThickness=2.5,
    )  # fmt: skip
    out = tmp_path / "case"
    arguments = ["compose", str(tmp_path / "in"), "--out", str(out), "--size-mm", "9:11", "--contrast", "90:110"]
    assert not cli.main(arguments, standalone_mode=False)
    written = [pydicom.dcmread(file) for file in (out / "dicom").iterdir()]
    assert {(one.SOPClassUID, one.Modality) for one in written} == {(MR, "MR")}
    uids = {str(one.SOPInstanceUID) for one in written}
    seg = hd.seg.segread(out / "segmentation.dcm")
    assert {str(uid) for _, _, uid in seg.get_source_image_uids()} <= uids
    changed = compose(image, read_case(out)).alpha > 0
    assert np.array_equal(read_image(out / "dicom").pixels[~changed], image.pixels[~changed])
    (group,) = hd.sr.srread(out / "measurements.dcm").content.get_volumetric_roi_measurement_groups()
    assert group.finding_sites == []  # nobody knows the organ
    names = [measurement.name.meaning for measurement in group.get_measurements()]
    assert any("signal intensity" in name.lower() for name in names)
