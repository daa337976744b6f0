"""Outlines that meet the image or don't; lesions cut from one slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion.inflate import inflate
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE
from HiResMedSynthLib.lesion.lesion_grid import to_grid
from HiResMedSynthLib.lesion.outline import outline_from_box, outline_from_mask
from HiResMedSynthLib.lesion.own import own_lesion
from HiResMedSynthLib.lesion.own_slice import as_hounsfield, own_slice


def volume(pixels: np.ndarray, first_mm: tuple[float, float, float] = (0, 0, 0), **fields: object) -> MedicalImage:
    steps = np.arange(len(pixels))[:, None] * (0, 0, 2.0)
    facts = {"pixel_spacing_mm": (1.0, 0.5), "spacing_source": "header", "slice_thickness_mm": 2.0, **fields}
    return MedicalImage(pixels=pixels, modality="CT", units="HU", positions_lps_mm=steps + first_mm, **facts)  # type: ignore[arg-type]


IMAGE = volume(np.zeros((6, 20, 24), np.int16))


def labelled(*values: int) -> np.ndarray:
    mask = np.zeros(IMAGE.shape, np.uint8)
    for k, value in enumerate(values):
        mask[2:4, 5:9, 3 + 6 * k : 7 + 6 * k] = value
    return mask


def test_a_mask_on_the_image_gives_its_box() -> None:
    corner, inside = outline_from_mask(IMAGE, volume(labelled(1)))
    assert (corner, inside.shape, bool(inside.all())) == ((2, 5, 3), (2, 4, 4), True)
    corner, _ = outline_from_mask(IMAGE, volume(labelled(1, 2)), label=2)
    assert corner == (2, 5, 9)
    corner, _ = outline_from_mask(IMAGE, MedicalImage(pixels=labelled(7), modality="OT"))  # without geometry
    assert corner == (2, 5, 3)


def test_a_soft_mask_counts_from_one_half_and_other_fractions_are_refused() -> None:
    soft = labelled(1).astype(np.float32)
    soft[2:4, 5:9, 3] = 0.5
    soft[2:4, 5:9, 2] = 0.4
    corner, inside = outline_from_mask(IMAGE, volume(soft))
    assert (corner, inside.shape, bool(inside.all())) == ((2, 5, 3), (2, 4, 4), True)
    corner, inside = outline_from_mask(IMAGE, volume(labelled(2).astype(np.float32)), label=2)  # labels kept as floats
    assert (corner, inside.shape) == ((2, 5, 3), (2, 4, 4))
    for wrong in (1.7 * soft, -soft):
        with pytest.raises(BankError, match="neither labels") as refused:
            outline_from_mask(IMAGE, volume(wrong))
        assert "label map" in refused.value.remedy


def test_a_cropped_mask_is_put_where_its_positions_say() -> None:
    part = labelled(1)[2:4, 4:10, 2:10]
    corner, inside = outline_from_mask(IMAGE, volume(part, (2 * 0.5, 4 * 1.0, 2 * 2.0)))
    assert (corner, inside.shape) == ((2, 5, 3), (2, 4, 4))


REFUSED = {
    "is empty": volume(np.zeros(IMAGE.shape, np.uint8)),
    "several labels": volume(labelled(1, 2)),
    "of the image": volume(np.ones(IMAGE.shape, np.uint8)),
    "don't meet": volume(labelled(1), (0, 0, 500.0)),
    "doesn't meet": volume(labelled(1), (100.0, 0, 0)),
    "reaches beyond": volume(labelled(1), (-5 * 0.5, 0, 0)),
    "other voxels": volume(labelled(1), pixel_spacing_mm=(1.0, 1.0)),
    "elsewhere": volume(labelled(1), (0.2, 0, 0)),
    "20 x 24": MedicalImage(pixels=labelled(1)[2:3], modality="OT"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_mask_that_doesnt_meet_the_image_is_refused(what: str) -> None:
    with pytest.raises(BankError, match=what) as refused:
        outline_from_mask(IMAGE, REFUSED[what])
    assert refused.value.remedy


def test_a_box_is_two_corners_in_any_order() -> None:
    corner, inside = outline_from_box(IMAGE, (9, 12, 5, 3, 4, 2))
    assert (corner, inside.shape) == ((2, 5, 3), (3, 5, 10))
    for box in ((0, 0, 25, 5, 1, 2), (0, 0, 5, 5), (0, 0, 19, 23, 0, 5), (-1, 0, 5, 5, 0, 1)):
        with pytest.raises(BankError):
            outline_from_box(IMAGE, box)


def test_a_disc_becomes_a_ball() -> None:
    row, column = np.mgrid[-20:21, -20:21]
    alpha = np.clip(12.5 - np.hypot(row, column), 0, 1)
    solid = inflate(np.stack([0.9 * alpha, alpha]))
    middle = solid.shape[1] // 2
    assert np.allclose(solid[:, middle], np.stack([0.9 * alpha, alpha]))
    assert solid[1].sum() == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.1)
    assert not solid[:, [0, -1]][1].any() or solid.shape[1] >= 25
    assert np.allclose(solid[0], 0.9 * solid[1])


def test_a_soft_rim_fades_over_depth_too() -> None:
    row, column = np.mgrid[:64, :64] - 31.5
    away = np.hypot(row, column)
    alpha = np.clip((24 - away) / 8 + 0.5, 0, 1)
    solid = inflate(np.stack([0.8 * alpha, alpha]))[1]
    middle, rim = len(solid) // 2, (away >= 24) & (alpha > 0.05)
    assert np.allclose(solid[middle], alpha)
    shares = [solid[middle + k][rim].mean() / alpha[rim].mean() for k in (1, 2, 4, 8)]
    assert shares[0] > 0.85  # no disc of the rim in the middle slice alone
    assert shares == sorted(shares, reverse=True)
    assert solid.sum() == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.1)
    assert solid[[0, -1]].max() < 0.02


def slice_image(hu_of_lesion: int = 30) -> MedicalImage:
    row, column = np.mgrid[:64, :64]
    alpha = np.clip(6.5 - np.hypot(row - 30, column - 33), 0, 1)
    grain = np.random.default_rng(0).normal(0, 8, (64, 64))
    hu = alpha * hu_of_lesion + (1 - alpha) * -850 + grain
    return MedicalImage(
        pixels=np.round(hu).astype(np.int16),
        modality="CT",
        units="HU",
        pixel_spacing_mm=(0.7, 0.7),
        spacing_source="header",
    )


def outline_of_disc(radius: float = 6.0) -> tuple[tuple[int, int, int], np.ndarray]:
    row, column = np.mgrid[-8:9, -8:9]
    return (0, 22, 25), (np.hypot(row, column) <= radius)[None]


@pytest.mark.parametrize("find", [False, True])
def test_a_lesion_of_one_slice_keeps_its_size_and_tissue(find: bool) -> None:
    corner, inside = outline_of_disc()
    lesion = own_slice(slice_image(), corner, np.ones_like(inside) if find else inside, name="mine", find=find)
    volume_mm3 = float(lesion.alpha.sum()) / ALPHA_ONE * lesion.voxel_mm**3
    assert (6 * volume_mm3 / np.pi) ** (1 / 3) == pytest.approx(8.4, rel=0.15)
    core = lesion.intensity_hu[lesion.alpha > 0.9 * ALPHA_ONE]
    assert np.median(core) == pytest.approx(30, abs=15)
    assert "rounded in depth" in lesion.card.origin
    assert np.isfinite(to_grid(lesion).values).all()


def test_a_lesion_of_a_synthetic_image_is_not_told_as_real() -> None:
    corner, inside = outline_of_disc()
    oddities = ("the source is itself synthetic (0008,001C)",)
    flat = replace(slice_image(), oddities=oddities)
    pixels = np.repeat(flat.pixels, 14, axis=0)
    pixels[[0, 1, -2, -1]] = pixels[0, 0, 0]
    deep = replace(flat, pixels=pixels, slice_thickness_mm=1.0, positions_lps_mm=None)
    solid = np.zeros((6, *inside.shape[1:]), dtype=bool) | inside
    for lesion in (
        own_slice(flat, corner, inside, name="mine"),
        own_lesion(deep, (4, *corner[1:]), solid, name="mine"),
    ):
        assert "real" not in lesion.card.origin
        assert "synthetic image" in lesion.card.origin
        assert lesion.card.licence == "that of the source image"
    assert own_slice(slice_image(), corner, inside, name="mine").card.licence == "the owner's own"


def test_a_lesion_of_too_few_slices_is_pointed_to_its_slice() -> None:
    corner, inside = outline_of_disc()
    deep = replace(
        slice_image(), pixels=np.repeat(slice_image().pixels, 5, axis=0), slice_thickness_mm=5.0, positions_lps_mm=None
    )
    two = np.concatenate([inside & (np.indices(inside.shape)[1] > 8), inside])
    with pytest.raises(BankError, match="2 slice") as refused:
        own_lesion(deep, (2, *corner[1:]), two, name="mine")
    assert "--slice 3" in refused.value.remedy


def test_a_slice_that_holds_no_cuttable_lesion_is_refused() -> None:
    corner, inside = outline_of_disc()
    image = slice_image()
    tiny = np.zeros_like(inside)
    tiny[0, 8, 8] = True
    tissue = replace(image, pixels=np.full_like(image.pixels, 40))
    grey = replace(image, units="stored")
    for wrong, mask in ((image, tiny), (image, np.zeros_like(inside)), (tissue, inside), (grey, inside)):
        with pytest.raises(BankError) as refused:
            own_slice(wrong, corner, mask, name="mine")
        assert refused.value.remedy


def test_an_8_bit_picture_is_a_ct_once_its_window_is_told() -> None:
    grey = np.array([[0, 255], [51, 102]], np.uint8)
    picture = MedicalImage(pixels=grey, modality="OT", pixel_spacing_mm=(1, 1), spacing_source="assumed")
    image = as_hounsfield(picture, -1350, 150)
    assert (image.units, image.pixels[0].tolist()) == ("HU", [[-1350, 150], [-1050, -750]])
    assert any("-1350" in oddity for oddity in image.oddities)
    with pytest.raises(BankError, match="8-bit"):
        as_hounsfield(image, -1350, 150)
