"""The invisible mark: only inside the footprints, found again there and alone, never where it isn't."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib import mark
from HiResMedSynthLib.case import Case
from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.compose import Composition, compose, compose_patches, footprint
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.image_file import dicom_dataset, write_image_file
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.provenance import provenance_of
from HiResMedSynthLib.read import read_image
from Testing.export.cases import composition_in, ct_image, film_image

NOISE = 2.0


def film(seed: int = 0, **changes: Any) -> MedicalImage:
    """A radiograph of 256 x 256 with a smooth body, an edge, and noise; 8 bits."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:256, :256]
    body = 110 + 60 * np.sin(rows / 37.0) * np.cos(columns / 51.0) + 40 * (columns > 140)
    pixels = np.clip(body + rng.normal(0, NOISE, body.shape), 0, 255).astype(np.uint8)
    return film_image(pixels=pixels, bits_stored=8, facts=HeaderFacts(), modality="OT", **changes)


def marked_case(image: MedicalImage, side: int, strength: float = 1.0) -> Case:
    """A case with one soft square lesion of that side, marked."""
    case = composition_in(image).case
    lesion = case.lesions[0]
    alpha = np.full((1, side, side), 65535, np.uint16)
    alpha[:, :3] = 9000
    grain = np.random.default_rng(3).normal(0, NOISE, alpha.shape)
    placed = replace(lesion, corner=(0, 70, 60), alpha=alpha, intensity=(150 + grain).astype(np.int16))
    return replace(case, lesions=(placed,), settings=replace(case.settings, watermark=strength))


def jpeg(plane: NDArray[Any], quality: int) -> NDArray[Any]:
    packed = io.BytesIO()
    Image.fromarray(plane).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed))


def test_the_mark_is_inside_the_footprint_only_and_the_same_in_patches() -> None:
    image = film()
    case = marked_case(image, 90)
    composition = compose(image, case)
    plain = compose(image, replace(case, settings=replace(case.settings, watermark=0.0)))
    changed = composition.image.pixels != plain.image.pixels
    inside = footprint(case)
    assert not changed[~inside].any()
    difference = composition.image.pixels.astype(int) - plain.image.pixels
    assert changed[inside].mean() > 0.99
    assert set(np.unique(difference[changed])) == {-1, 1}
    assert abs(difference[inside].mean()) < 0.05, "it would shift what is measured"
    patch = compose_patches(image, case)[1]
    assert np.array_equal(patch, composition.image.pixels[case.lesions[0].region])


@pytest.mark.parametrize("quality", [None, 90, 75])
def test_a_large_footprint_is_found_with_and_without_its_place_after_jpeg(quality: int | None) -> None:
    image = film()
    case = marked_case(image, 128)
    pixels = compose(image, case).image.pixels
    if quality is not None:
        pixels = jpeg(pixels[0], quality)[np.newaxis]
    assert mark.find_at(pixels, footprint(case), amplitude=1.0).answer == "yes"
    assert mark.find_anywhere(pixels).answer == "yes"
    inverted = 255 - pixels
    assert mark.find_at(inverted, footprint(case), amplitude=1.0).answer == "yes"


def test_a_small_footprint_cannot_be_told_and_a_large_one_without_a_mark_is_a_no() -> None:
    image = film()
    small = marked_case(image, 12)
    assert mark.find_at(compose(image, small).image.pixels, footprint(small), amplitude=1.0).answer == "cannot tell"
    large = marked_case(image, 150)
    unmarked = compose(image, replace(large, settings=replace(large.settings, watermark=0.0))).image.pixels
    assert mark.find_at(unmarked, footprint(large), amplitude=1.0).answer == "no"


def test_a_whole_picture_is_found_in_any_cut_out_of_it() -> None:
    image = film()
    pixels = mark.marked(image, amplitude=1.0).pixels[0]
    for row, column in ((0, 0), (7, 12), (33, 1)):
        cut = pixels[row : row + 200, column : column + 190]
        assert mark.find_whole(cut, amplitude=1.0).answer == "yes"
        assert mark.find_whole(jpeg(cut, 75), amplitude=1.0).answer == "yes"
    assert mark.find_whole(image.pixels[0], amplitude=1.0).answer != "yes"


def test_false_alarms_keep_to_their_bound() -> None:
    """Of 60 unmarked pictures none may be called marked, and z stays where chance alone leaves it."""
    inside = np.ones((1, 256, 256), dtype=np.bool_)
    scores = [mark.find_at(film(seed).pixels, inside, amplitude=1.0).z for seed in range(60)]
    assert max(map(abs, scores)) < 5.5
    assert 0.6 < float(np.std(scores)) < 1.4
    assert mark.find_at(np.zeros((1, 64, 64), np.uint8), inside[:, :64, :64], amplitude=1.0).answer != "yes"
    assert mark.find_anywhere(np.zeros((1, 8, 8), np.uint8)).answer == "cannot tell"


def test_the_pattern_differs_from_slice_to_slice_and_comes_again() -> None:
    one, two, ninth = (mark.pattern(100, 70, k) for k in (0, 1, 8))
    assert one.shape == (100, 70)
    assert not np.array_equal(one, two)
    assert np.array_equal(one, ninth)
    assert abs(one.mean()) < 0.1


def test_whole_numbers_of_a_narrow_window_are_marked_by_whole_steps() -> None:
    grey = np.random.default_rng(2).integers(60, 110, (256, 256)).astype(np.int16)
    image = MedicalImage(pixels=grey, modality="MR", pixel_spacing_mm=(1.0, 1.0), spacing_source="header")
    assert image.display_window().width < 60 and image.bits_stored is None  # as a NIfTI is
    assert mark.amplitude_for(image) == 1.0
    fractions = replace(image, pixels=image.pixels.astype(np.float32) / 110)
    assert 0 < mark.amplitude_for(fractions) < 0.01


def test_a_strength_that_cannot_be_is_refused() -> None:
    case = composition_in(film()).case
    with pytest.raises(SettingsError):
        replace(case.settings, watermark=-1.0)


def test_verify_tells_by_tag_case_and_mark(tmp_path: Path) -> None:
    image = film()
    out = tmp_path / "case"
    export(compose(image, marked_case(image, 128)), out, pair=True)
    run = CliRunner().invoke(cli, ["verify", str(out)])
    assert run.exit_code == 0
    assert [line.split()[1].rstrip(":") for line in run.output.splitlines()[:3]] == ["yes", "yes", "yes"]
    pixels = read_image(out / "dicom").pixels[0]
    Image.fromarray(pixels).save(tmp_path / "screenshot.jpg", quality=85)
    run = CliRunner().invoke(cli, ["verify", str(tmp_path / "screenshot.jpg")])
    assert run.exit_code == 0
    assert "mark    yes" in run.output
    Image.fromarray(image.pixels[0]).save(tmp_path / "real.png")
    run = CliRunner().invoke(cli, ["verify", str(tmp_path / "real.png")])
    assert run.exit_code == 3
    assert "cannot tell" in run.output
    run = CliRunner().invoke(cli, ["verify", str(out / "segmentation.dcm")])
    assert "mark    cannot tell" in run.output
    assert "tag     yes" in run.output


def test_verify_knows_which_slices_an_export_of_the_changed_ones_holds(tmp_path: Path) -> None:
    grain = np.random.default_rng(2).normal(-500, 3 * NOISE, (6, 128, 128))
    image = ct_image(pixels=grain.astype(np.int16), positions_lps_mm=np.array([[0, 0, 2.5 * k] for k in range(6)]))
    case = composition_in(image).case
    alpha = np.full((2, 110, 110), 65535, np.uint16)
    lesion = replace(case.lesions[0], corner=(3, 9, 9), alpha=alpha, intensity=image.pixels[3:5, 9:119, 9:119])
    case = replace(case, lesions=(lesion,), settings=replace(case.settings, watermark=5.0))
    out = tmp_path / "case"
    export(compose(image, case), out, changed_only=True, pair=True)

    def said_of_the_mark(path: Path) -> str:
        return CliRunner().invoke(cli, ["verify", str(path)]).output.partition("mark    ")[2]

    for path in (out, out / "dicom", out / "dicom" / "IM0005.dcm"):
        assert said_of_the_mark(path).startswith("yes: the pattern is in the lesions")
    assert said_of_the_mark(out / "dicom_background").startswith("no: it would stand at")
    shot = (read_image(out / "dicom").pixels[1] + 1000).clip(0, 65535).astype(np.uint16)
    Image.fromarray(shot).save(out / "shot.png")  # of which slice nobody knows: never "this slice holds no lesion"
    assert not said_of_the_mark(out / "shot.png").startswith("no")
    run = CliRunner().invoke(cli, ["verify", str(out / "preview.png")])
    assert (run.exit_code, "tag     yes" in run.output) == (0, True)


def test_verify_notices_another_case_and_says_what_is_missing(tmp_path: Path) -> None:
    image = film()
    export(compose(image, marked_case(image, 20)), tmp_path / "case")
    alone = tmp_path / "elsewhere" / "deep" / "a.dcm"
    alone.parent.mkdir(parents=True)
    alone.write_bytes((tmp_path / "case" / "dicom" / "IM0001.dcm").read_bytes())
    assert "case    cannot tell: of the case" in CliRunner().invoke(cli, ["verify", str(alone)]).output
    with (tmp_path / "case" / "case.json").open("a") as stream:
        stream.write(" ")
    run = CliRunner().invoke(cli, ["verify", str(tmp_path / "case" / "dicom" / "IM0001.dcm")])
    assert "case    no: case.json beside is another case's, or was changed" in run.output


def test_verify_calls_a_folder_with_one_real_film_mixed(tmp_path: Path) -> None:
    for name in ("made.dcm", "a/made.png", "a/made.nrrd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image_file(film(), tmp_path / name, how="made for a test")
    (tmp_path / ".thumb.png").write_bytes(b"\x89PNG")
    run = CliRunner().invoke(cli, ["verify", str(tmp_path)])
    assert (run.exit_code, "tag     yes: every header" in run.output) == (0, True)
    run = CliRunner().invoke(cli, ["verify", str(tmp_path / "a")])  # pictures and volumes alone
    assert (run.exit_code, "tag     yes: every header" in run.output) == (0, True)
    data = pydicom.dcmread(tmp_path / "made.dcm")
    del data.SyntheticData, data.ContributingEquipmentSequence
    data.save_as(tmp_path / "a" / "real.dcm")
    run = CliRunner().invoke(cli, ["verify", str(tmp_path)])
    assert (run.exit_code, "so      mixed" in run.output) == (4, True)
    assert "1 of 4 files is NOT marked: a/real.dcm" in run.output
    assert "made by HiResMedSynth" not in run.output
    for number in range(4):
        Image.new("L", (64, 64)).save(tmp_path / f"{number}.jpg")
    run = CliRunner().invoke(cli, ["verify", str(tmp_path)])
    assert "5 of 8 files are NOT marked: 0.jpg, 1.jpg, 2.jpg ..." in run.output


def test_a_mark_in_one_picture_does_not_speak_for_its_folder(tmp_path: Path) -> None:
    data = dicom_dataset(mark.marked(film(), amplitude=1.0), how="made for a test")
    del data.SyntheticData, data.ContributingEquipmentSequence
    data.save_as(tmp_path / "marked.dcm", enforce_file_format=True)
    assert CliRunner().invoke(cli, ["verify", str(tmp_path)]).exit_code == 0
    Image.fromarray(film(1).pixels[0]).save(tmp_path / "real.png")
    run = CliRunner().invoke(cli, ["verify", str(tmp_path)])
    assert run.exit_code == 4
    assert "mark    cannot tell: the pattern is all over 1 of 2 files" in run.output
    assert "1 of 2 files is NOT marked: real.png" in run.output
    Image.fromarray(mark.marked(film(1), amplitude=1.0).pixels[0]).save(tmp_path / "real.png")
    seen: list[tuple[int, int]] = []
    found = provenance_of(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert (found.ours, found.mark.answer, found.unmarked) == (True, "yes", ())
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert CliRunner().invoke(cli, ["verify", str(tmp_path)]).exit_code == 0


def test_a_case_that_headers_name_does_not_speak_for_a_real_film_beside(tmp_path: Path) -> None:
    """A program that doesn't know (0008,001C) drops it; Contributing Equipment stays."""
    export(composition_in(film()), tmp_path / "case")
    file = tmp_path / "case" / "dicom" / "IM0001.dcm"
    data = pydicom.dcmread(file)
    del data.SyntheticData
    data.save_as(file)
    run = CliRunner().invoke(cli, ["verify", str(file.parent)])
    assert (run.exit_code, "case    yes" in run.output, "tag     cannot tell" in run.output) == (0, True, True)
    assert "or names a case of it" in CliRunner().invoke(cli, ["verify", str(tmp_path / "case")]).output
    del data.ContributingEquipmentSequence
    data.save_as(file.parent / "real.dcm")
    run = CliRunner().invoke(cli, ["verify", str(file.parent)])
    assert (run.exit_code, "1 of 2 files is NOT marked: real.dcm" in run.output) == (4, True)


@pytest.mark.parametrize("suffix", [".dcm", ".nrrd", ".png"])
def test_verify_knows_made_images_by_what_their_file_says(suffix: str, tmp_path: Path) -> None:
    write_image_file(film(), tmp_path / f"made{suffix}", how="made for a test")
    run = CliRunner().invoke(cli, ["verify", str(tmp_path / f"made{suffix}")])
    assert run.exit_code == 0
    assert "tag     yes" in run.output


def test_verify_of_a_mask_in_nifti_and_of_nothing(tmp_path: Path) -> None:
    export(composition_in(film()), tmp_path / "case")
    assert "tag     yes" in CliRunner().invoke(cli, ["verify", str(tmp_path / "case" / "instance_mask.nii.gz")]).output
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "empty"):
        run = CliRunner().invoke(cli, ["verify", str(path)])
        assert run.exception is not None
        assert "remedy" in vars(run.exception)


@pytest.mark.parametrize(("lossy", "answer"), [(None, "no"), ("01", "cannot tell")])
def test_a_mark_that_is_missing_is_a_no_unless_compression_may_have_taken_it(
    lossy: str | None, answer: str, tmp_path: Path
) -> None:
    image = film()
    image = replace(image, facts=replace(image.facts, lossy_image_compression=lossy))
    export(Composition(image=image, background=image, case=marked_case(image, 150)), tmp_path / "case")
    assert f"mark    {answer}" in CliRunner().invoke(cli, ["verify", str(tmp_path / "case")]).output
