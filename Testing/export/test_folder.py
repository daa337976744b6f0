"""One folder, all or nothing: layout, boxes, refusals, and nothing left behind when writing fails."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image, ImageDraw

from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.errors import ExportError
from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.preview import preview, zoom_window
from Testing.export.cases import CORNER, SIZE, composition_in, ct_image, film_image


def test_the_layout_is_as_documented(tmp_path: Path) -> None:
    exported = export(composition_in(ct_image()), tmp_path / "case", pair=True)
    names = {path.name for path in (tmp_path / "case").iterdir()}
    assert names == {
        "dicom", "dicom_background", "segmentation.dcm", "measurements.dcm", "boxes_coco.json", "labels_yolo",
        "instance_mask.nii.gz", "preview.png", "case.json", "lesions.safetensors",
    }  # fmt: skip
    assert str(tmp_path / "case" / "segmentation.dcm") in exported.summary()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["case"], "nothing else is left"


def test_boxes_and_masks_agree(tmp_path: Path) -> None:
    composition = composition_in(ct_image(), lesions=2)
    export(composition, tmp_path / "case")
    coco = json.loads((tmp_path / "case" / "boxes_coco.json").read_text())
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "case" / "instance_mask.nii.gz")))
    assert np.array_equal(mask, composition.instance_mask)
    assert len(coco["annotations"]) == 2 * SIZE[0]
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        plane = mask[annotation["image_id"] - 1] == annotation["lesion"]
        rows, columns = np.nonzero(plane)
        assert (x, y) == (columns.min(), rows.min())
        assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert annotation["area"] == len(rows), "the mask's, as in a data set"
        name = coco["images"][annotation["image_id"] - 1]["file_name"]
        assert (tmp_path / "case" / name).is_file()
    assert coco["categories"][0]["name"] == "solid"  # the same list in every case
    assert len(coco["categories"]) == len((tmp_path / "case" / "labels_yolo" / "classes.txt").read_text().split())
    line = (tmp_path / "case" / "labels_yolo" / "IM0003.txt").read_text().splitlines()[0].split()
    x, y, width, height = (float(v) * n for v, n in zip(line[1:], (32, 24, 32, 24), strict=True))
    assert (x - width / 2, y - height / 2) == pytest.approx((CORNER[2], CORNER[1]), abs=1e-3)
    assert (tmp_path / "case" / "labels_yolo" / "IM0001.txt").read_text() == ""


def test_changed_only_writes_the_slices_with_a_lesion_consistently(tmp_path: Path) -> None:
    composition = composition_in(ct_image())
    exported = export(composition, tmp_path / "case", changed_only=True)
    assert exported.slices == len(composition.changed_slices) < composition.image.slices
    mask = sitk.ReadImage(str(tmp_path / "case" / "instance_mask.nii.gz"))
    assert mask.GetOrigin()[2] == pytest.approx(10.0 + 2.5 * composition.changed_slices[0])
    names = sorted(path.name for path in (tmp_path / "case" / "dicom").iterdir())
    assert names == [f"IM{index + 1:04d}.dcm" for index in composition.changed_slices]


def test_the_preview_shows_the_lesion_and_the_true_aspect(tmp_path: Path) -> None:
    export(composition_in(film_image()), tmp_path / "case")
    with Image.open(tmp_path / "case" / "preview.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    coloured = (pixels[..., 0] - pixels[..., 2]) > 60
    rows, columns = np.nonzero(coloured[:, :520])
    assert len(rows) > 20, "no outline"
    assert columns.max() < 520


def test_an_enlarged_part_of_a_film_has_a_window_of_its_own() -> None:
    """A nodule of some grey levels is lost in a window that spans a whole film; a CT keeps its lung window."""
    grey = np.full((200, 240), 4000, np.uint16)
    grey[:40, :40] = np.random.default_rng(0).integers(90, 110, (40, 40))
    film = composition_in(film_image(pixels=grey))
    part = slice(0, 30), slice(0, 30)
    window = zoom_window(film, 0, *part)
    assert film.background.display_window().width > 3000
    assert window.width < 60
    before, after = (window.to_unit(image.pixels[0][part]) for image in (film.background, film.image))
    inside = film.instance_mask[0][part] > 0
    assert before[inside].mean() - after[inside].mean() > 0.3  # of 77 among 90 to 110
    scan = composition_in(ct_image())
    assert zoom_window(scan, 3, *part) == scan.background.display_window()


def test_the_preview_shows_the_centres_slice_and_labels_that_keep_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[tuple[float, float], str]] = []
    write = ImageDraw.ImageDraw.text

    def noted(draw: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **how: Any) -> None:
        written.append((xy, text))
        write(draw, xy, text, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noted)
    wide = ct_image(pixels=np.full((7, 240, 320), -800, np.int16))
    two = composition_in(wide, lesions=2).case
    last = tuple(replace(lesion, center=(4.0, *lesion.center[1:])) for lesion in two.lesions)
    preview(compose(wide, replace(two, lesions=last)))
    assert [text for _, text in written if "slice" in text] == ["SYNTHETIC, research only, slice 4"] * 2
    first, second = (next(xy for xy, text in written if text.startswith(f"{number}:")) for number in (1, 2))
    assert abs(first[0] - second[0]) > 45 or abs(first[1] - second[1]) > 14  # of letters of 14 px

    written.clear()
    preview(composition_in(ct_image(pixels=np.full((7, 24, 18), -800, np.int16))))  # the lesion at the right border
    (label,) = (xy for xy, text in written if text == "1: 5 mm")
    assert 0 <= label[0] < 520 * 18 / 24 - 40


def test_the_preview_says_synthetic_in_the_corner_of_what_is_synthetic(tmp_path: Path) -> None:
    dark = film_image(pixels=np.zeros((40, 48), np.uint16))
    export(composition_in(dark), tmp_path / "case")
    with Image.open(tmp_path / "case" / "preview.png") as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    panels = [pixels[26:, 524 * k : 524 * k + 120] for k in range(3)]  # whole, before, after: their left ends
    assert [bool((panel > 200).any()) for panel in panels] == [True, False, True]


@pytest.mark.parametrize("spoil", ["file", "folder", "other folder"])
def test_what_stands_there_is_never_touched(spoil: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if spoil == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(ExportError) as refused:
        export(composition_in(ct_image()), out, overwrite=spoil == "other folder")
    assert refused.value.remedy
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    export(composition_in(ct_image()), tmp_path / "case")
    (tmp_path / "case" / "thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match="no folder of an earlier case"):
        export(composition_in(ct_image()), tmp_path / "case", overwrite=True)
    assert (tmp_path / "case" / "thesis.tex").read_text() == "mine"


def test_an_earlier_case_is_replaced_on_request(tmp_path: Path) -> None:
    export(composition_in(ct_image()), tmp_path / "case")
    export(composition_in(ct_image(), lesions=2), tmp_path / "case", overwrite=True)
    assert len(json.loads((tmp_path / "case" / "case.json").read_text())["lesions"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


FAILURES = {
    "disk full": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "Ctrl-C": KeyboardInterrupt(),
    "a bug": ZeroDivisionError(),
}


@pytest.mark.parametrize("failure", sorted(FAILURES))
@pytest.mark.parametrize("after", [0, 3, 6, "writing masks and boxes", "drawing the preview", "case written"])
def test_a_failure_in_mid_series_leaves_nothing(
    failure: str, after: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(composition_in(ct_image()), tmp_path / "old")
    kept = {str(p): p.read_bytes() for p in (tmp_path / "old").rglob("*") if p.is_file()}

    def progress(done: int, _total: int, what: str) -> None:
        if what == after or (isinstance(after, int) and done > after):
            raise FAILURES[failure]

    for target in (tmp_path / "deep" / "new", tmp_path / "old"):
        with pytest.raises((ExportError, KeyboardInterrupt, ZeroDivisionError)) as stopped:
            export(composition_in(ct_image()), target, overwrite=True, progress=progress)
        if failure == "disk full":
            assert "Free some space" in str(stopped.value)
    assert {str(p): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.skipif(os.name != "posix", reason="needs /proc, which nobody can write into")
def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ExportError) as refused:
        export(composition_in(ct_image()), "/proc/here/case")
    assert refused.value.remedy


def test_an_unevenly_spaced_stack_says_that_nifti_cannot_tell(tmp_path: Path) -> None:
    heights = [0.0, 2.5, 5.0, 7.5, 15.0, 17.5, 20.0]
    image = ct_image(positions_lps_mm=np.array([[0.0, 0.0, z] for z in heights]))
    exported: Any = export(composition_in(image), tmp_path / "case")
    assert any("not evenly spaced" in note for note in exported.notes)
