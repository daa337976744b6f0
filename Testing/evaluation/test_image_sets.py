"""What is found in folders of images, and what may not be compared."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from HiResMedSynthLib.batch.manifest import COLUMNS
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError, SettingsError
from HiResMedSynthLib.evaluation.comparable import Grid, PictureFacts, alike, common_grid, shared_patients, survey
from HiResMedSynthLib.evaluation.image_sets import evenly, find_images, pictures, read_source
from HiResMedSynthLib.image import Window
from Testing.evaluation.films import SIDE, film, put_films
from Testing.labelled_folders import ct_volume, dicom, masks, nnunet, put_volume, yolo
from Testing.slices import DX, write_slice, write_stack


def looked_at(folder: Path, slices: int = 3) -> list[PictureFacts]:
    return survey(find_images(folder), most=slices, progress=lambda *_: None, what="")


def grid_of(real: Path, synthetic: Path, *, window: Window | None = None, resample: bool = False) -> Grid:
    return common_grid(looked_at(real), looked_at(synthetic), window=window, resample=resample)[0]


def case(folder: Path, *, seed: int = 0, pair: bool = True, shape: tuple[int, int, int] = (3, 48, 64)) -> Path:
    """A folder as `compose --pair` exports it: a CT with a bright lesion in its middle slice."""
    stored = (np.random.default_rng(seed).normal(150, 20, shape)).astype(np.uint16)
    heights = [5.0 * k for k in range(shape[0])]
    shown = {"WindowCenter": -600, "WindowWidth": 1500}
    if pair:
        write_stack(folder / "dicom_background", stored, heights, **shown)
    mask = np.zeros(shape, np.uint8)
    mask[1, 15:30, 20:35] = 1
    write_stack(folder / "dicom", np.where(mask > 0, 1100, stored).astype(np.uint16), heights, **shown)
    put_volume(folder / "instance_mask.nii.gz", mask, (0.7, 0.7, 5.0))
    told = {"synthetic": True, "background": {"pixel_sha256": f"background {seed}"}}
    (folder / "case.json").write_text(json.dumps(told))
    return folder


# -- what is found -----------------------------------------------------------------------------------------------------
def test_exported_cases(tmp_path: Path) -> None:
    for seed in range(2):
        case(tmp_path / f"c{seed}", seed=seed)
    one, other = find_images(tmp_path)
    assert (one.name, one.paired, one.background_sha256) == ("c0", True, "background 0")
    assert one.group != other.group
    loaded = read_source(one)
    assert loaded.described
    assert loaded.lesions is not None
    assert loaded.background is not None
    np.testing.assert_array_equal(
        loaded.image.pixels[loaded.lesions == 0], loaded.background.pixels[loaded.lesions == 0]
    )
    (shown,) = pictures(one, loaded, most=1, with_lesions=True)
    assert shown.name == "c0#1"
    assert int((shown.lesions > 0).sum()) == 15 * 15  # type: ignore[operator]
    assert find_images(tmp_path / "c0")[0].name == "c0"
    (by_series,) = find_images(tmp_path / "c0" / "dicom")  # its case lies one folder up
    assert (by_series.name, by_series.group, by_series.paired) == ("c0", one.group, True)
    assert read_source(by_series).lesions is not None


def test_two_cases_on_one_background_are_one_patient(tmp_path: Path) -> None:
    for name in "ab":
        case(tmp_path / name, seed=5)
    assert len({one.group for one in find_images(tmp_path)}) == 1


@pytest.mark.parametrize("place", [".", "cases", "cases/000"])
def test_slices_of_one_patient_in_a_data_set_are_one_patient(tmp_path: Path, place: str) -> None:
    """Each case names the slice that it was composed on; that they are of one CT only the manifest knows."""
    for seed in range(3):
        case(tmp_path / f"cases/000/case_{seed}", seed=seed)
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows({"image": f"case_{k}", "patient_group": group} for k, group in enumerate((7, 7, 8)))
    first, second, third = find_images(tmp_path / place)
    assert first.group == second.group != third.group
    (tmp_path / "manifest.csv").write_text("file,size\nx,1\n")  # a list of something else
    assert len({one.group for one in find_images(tmp_path / place)}) == 3


def test_patients_csv_says_whose_cases_are(tmp_path: Path) -> None:
    for name in "abc":
        case(tmp_path / name, seed=ord(name))
    (tmp_path / "patients.csv").write_text("file,patient\na,1\nb,1\n")
    first, second, third = find_images(tmp_path)
    assert first.group == second.group != third.group


def test_a_damaged_case_names_itself(tmp_path: Path) -> None:
    case(tmp_path / "c0", pair=False)
    put_volume(tmp_path / "c0" / "instance_mask.nii.gz", np.zeros((2, 48, 64), np.uint8), (1.0, 1.0, 1.0))
    with pytest.raises(ReadError, match=r"mask has the size.*c0"):
        read_source(find_images(tmp_path)[0])
    (tmp_path / "c0/case.json").write_text("{")
    with pytest.raises(ReadError, match="no JSON"):
        find_images(tmp_path)


def test_films_of_generate_and_what_is_no_film(tmp_path: Path) -> None:
    for seed in range(3):
        path = tmp_path / f"cxr-{seed}.dcm"
        uid = f"1.2.3.{seed}"
        write_slice(path, film(seed), modality="CR", sop_class=DX, SeriesInstanceUID=uid, PatientID=f"S{seed}")
    (tmp_path / "generated.json").write_text('{"synthetic": true, "images": [{"file": "cxr-1.dcm"}]}')
    Image.new("L", (50, 50)).save(tmp_path / "sheet.png")
    (tmp_path / "notes.txt").write_text("nothing")
    found = find_images(tmp_path)
    assert [one.name for one in found] == ["cxr-0.dcm", "cxr-1.dcm", "cxr-2.dcm"]
    assert [read_source(one).described for one in found] == [False, True, False]
    assert len({one.group for one in found}) == 3
    assert "S1" not in "".join(one.group for one in found)


def test_a_series_is_one_source_and_films_of_one_patient_one_group(tmp_path: Path) -> None:
    write_stack(tmp_path / "series", np.full((4, 32, 32), 900, np.uint16), [0.0, 2.0, 4.0, 6.0], PatientID="A")
    write_slice(tmp_path / "film.dcm", film(1), modality="CR", sop_class=DX, SeriesInstanceUID="1.2.9", PatientID="A")
    found = {one.name: one for one in find_images(tmp_path)}
    assert set(found) == {"series", "film.dcm"}
    assert found["series"].group == found["film.dcm"].group
    assert read_source(found["series"]).image.slices == 4


def test_series_of_one_folder_and_films_of_one_series_are_told_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        for height in (0, 5):
            stored = np.full((32, 32), 900 + number, np.uint16)
            write_slice(tmp_path / f"scans/{number}-{height}.dcm", stored, SeriesInstanceUID=f"1.2.3.{number}",
                        ImagePositionPatient=[0, 0, height], PatientID="A")  # fmt: skip
            write_slice(tmp_path / f"films/{number}-{height}.dcm", film(number + height), modality="DX", sop_class=DX,
                        SeriesInstanceUID="1.2.4", PatientID="A")  # fmt: skip
    found = find_images(tmp_path)
    assert [one.name for one in found if one.name.startswith("scans")] == ["scans/1-0.dcm", "scans/2-0.dcm"]
    assert [read_source(one).image.slices for one in found] == [1, 1, 1, 1, 2, 2]
    assert len({one.group for one in found}) == 1


def test_cases_of_a_data_set_lie_deeper(tmp_path: Path) -> None:
    case(tmp_path / "train/c1", seed=1)
    case(tmp_path / "test/c1", seed=2)
    assert [one.name for one in find_images(tmp_path)] == ["test/c1", "train/c1"]


def test_a_patient_who_is_nobody_is_each_image_its_own(tmp_path: Path) -> None:
    for seed in range(2):
        uid = f"1.2.3.{seed}"
        write_slice(tmp_path / f"{seed}.dcm", film(seed), modality="CR", SeriesInstanceUID=uid, PatientID="ANONYMOUS")
    assert len({one.group for one in find_images(tmp_path)}) == 2


def test_patients_csv_tells_whose_films_are(tmp_path: Path) -> None:
    put_films(tmp_path, range(4))
    lines = "".join(f"film{seed}.png,p{seed // 2}\n" for seed in range(4))
    (tmp_path / "patients.csv").write_text(f"file,patient\n{lines}")
    assert len({one.group for one in find_images(tmp_path)}) == 2


@pytest.mark.parametrize(("make", "count", "lesions"), [(masks, 4, 0), (nnunet, 3, 0), (dicom, 2, 1)])
def test_labelled_folders(make: Callable[[Path], Path], count: int, lesions: int, tmp_path: Path) -> None:
    found = find_images(make(tmp_path))
    assert len(found) == count
    held = read_source(found[0]).lesions
    assert held is not None
    assert int(held.max()) == lesions  # lungs, heart and bone are none; the SEG's nodule is


def test_a_box_is_no_outline(tmp_path: Path) -> None:
    found = find_images(yolo(tmp_path))
    assert read_source(found[0]).lesions is None


def test_label_maps_of_a_folder_deeper_are_not_taken_for_images(tmp_path: Path) -> None:
    nnunet(tmp_path / "Dataset001")
    yolo(tmp_path / "yolo")
    with pytest.raises(ReadError, match=r"Name one of them itself: .*Dataset001, .*yolo\."):
        find_images(tmp_path)


def test_label_maps_beside_images_are_not_taken_for_images(tmp_path: Path) -> None:
    for name in ("case_1.nii.gz", "case_1_label.nii.gz"):
        put_volume(tmp_path / "monai/train" / name, ct_volume(0))
    for place in (".", "monai/train"):
        with pytest.raises(ReadError, match=r"label maps .* lie beside.*dicom or nnunet"):
            find_images(tmp_path / place)


def test_of_a_data_set_without_cases_the_volumes_are_read(tmp_path: Path) -> None:
    nnunet(tmp_path / "nnunet/Dataset001_Synthetic")
    yolo(tmp_path / "yolo")
    (tmp_path / "manifest.csv").write_text(",".join(COLUMNS) + "\n")
    volumes = tmp_path / "nnunet/Dataset001_Synthetic"
    names = [one.name for one in find_images(volumes)]
    (volumes / "patients.csv").write_text("file,patient\n" + "".join(f"{name},1\n" for name in names))
    found = find_images(tmp_path)
    assert [one.name for one in found] == names
    assert len({one.group for one in found}) == 1
    assert found[0].group != find_images(volumes)[0].group  # patient 1 of a data set is not patient 1 of another list
    case(tmp_path / "cases/000/case_1")
    assert [one.name for one in find_images(tmp_path)] == ["cases/000/case_1"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no such"):
        find_images(tmp_path / "none")
    with pytest.raises(ReadError, match="no image"):
        find_images(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ReadError, match=r"broken\.png"):
        looked_at(tmp_path)


def test_slices_are_evenly_spread() -> None:
    assert evenly(100, 4) == [12, 37, 62, 87]
    assert evenly(2, 4) == [0, 1]
    assert evenly(1, 4) == [0]


# -- what may be compared ----------------------------------------------------------------------------------------------
def ct_folder(folder: Path, seeds: range, *, spacing: float = 0.7) -> Path:
    for seed in seeds:
        put_volume(folder / f"ct{seed}.nii.gz", ct_volume(seed), (spacing, spacing, 2.0))
    return folder


def as_16_bit(folder: Path, seeds: range, *, times: int) -> Path:
    folder.mkdir(parents=True)
    for seed in seeds:
        Image.fromarray(film(seed).astype(np.uint16) * times).save(folder / f"wide{seed}.png")
    return folder


def dicom_films(folder: Path, seeds: range, **attributes: object) -> Path:
    for seed in seeds:
        options = {"SeriesInstanceUID": f"1.2.4.{seed}", "PatientID": f"D{seed}"} | attributes
        write_slice(folder / f"{seed}.dcm", film(seed), modality="DX", sop_class=DX, **options)
    return folder


def test_different_sets_are_refused_with_what_differs(tmp_path: Path) -> None:
    films = put_films(tmp_path / "films", range(2))
    ct = ct_folder(tmp_path / "ct", range(2))
    for one, other in ((films, ct), (ct, films)):
        with pytest.raises(SettingsError, match=r"modalities differ.*like with like"):
            grid_of(one, other)
    small = tmp_path / "small"
    small.mkdir()
    for seed in (5, 6):
        Image.fromarray(film(seed)[:64, :80]).save(small / f"{seed}.png")
    with pytest.raises(SettingsError, match=rf"real {SIDE} x {SIDE} \(2\); synthetic 64 x 80 \(2\).*--resample"):
        grid_of(films, small)
    grid = grid_of(films, small, resample=True)
    assert (grid.size, grid.resampled) == ((64, 80), True)
    with pytest.raises(SettingsError, match="1 image"):
        grid_of(films, put_films(tmp_path / "one", range(7, 8)))
    fine = dicom_films(tmp_path / "fine", range(2), PixelSpacing=[0.2, 0.2])
    coarse = dicom_films(tmp_path / "coarse", range(2, 4), PixelSpacing=[0.4, 0.4])
    with pytest.raises(SettingsError, match=r"real 0\.2 mm, synthetic 0\.4 mm"):
        grid_of(fine, coarse)


def test_ct_without_a_window_wants_one(tmp_path: Path) -> None:
    one, other = case(tmp_path / "a/x", seed=1), case(tmp_path / "b/y", seed=2)
    for folder in (one, other):  # a second patient on each side
        case(folder.parent / "z", seed=len(folder.name) + ord(folder.name))
    assert grid_of(tmp_path / "a", tmp_path / "b").unit == "1500 HU (window -600, 1500)"
    plain = tmp_path / "plain"
    for number in range(2):
        write_stack(plain / str(number), np.full((2, 48, 64), 900, np.uint16), [0.0, 5.0], PatientID=f"P{number}",
                    SeriesInstanceUID=f"1.2.5.{number}")  # fmt: skip
    with pytest.raises(SettingsError, match=r"windows differ or are missing.*--window"):
        grid_of(tmp_path / "a", plain)
    window = Window(center=40, width=400)
    assert grid_of(tmp_path / "a", plain, window=window).unit == "400 HU (window 40, 400)"


def test_12_bits_in_16_without_a_window_are_refused(tmp_path: Path) -> None:
    films = put_films(tmp_path / "films", range(2))
    with pytest.raises(SettingsError, match=r"fill 6% of the range.*--window"):
        grid_of(films, as_16_bit(tmp_path / "dark", range(2, 4), times=16))
    assert grid_of(films, as_16_bit(tmp_path / "full", range(4, 6), times=257)).kind == ""


def test_grey_values_of_unlike_depth_are_brought_to_the_coarser(tmp_path: Path) -> None:
    films, wide = put_films(tmp_path / "films", range(2)), as_16_bit(tmp_path / "wide", range(2), times=257)
    grid, notes = common_grid(looked_at(films), looked_at(wide), window=None, resample=False)
    assert any("256 levels" in note for note in notes)
    first, second = (grid.values(read_source(find_images(folder)[0]).image) for folder in (films, wide))
    np.testing.assert_array_equal(first, second)


def test_one_window_that_shows_both_sides_alike_is_named(tmp_path: Path) -> None:
    plain = put_films(tmp_path / "plain", range(2))
    for number in (2, 3):
        write_slice(tmp_path / "own" / f"{number}.dcm", film(number), modality="CR", sop_class=DX,
                    PatientID=f"P{number}", WindowCenter=100, WindowWidth=60)  # fmt: skip
    sides = looked_at(plain), looked_at(tmp_path / "own")
    (note,) = (note for note in common_grid(*sides, window=None, resample=True)[1] if "windows differ" in note)
    assert note.endswith("--window 127.5,255 shows all alike")
    alike = common_grid(*sides, window=Window(center=127.5, width=255), resample=True)[1]
    assert not any("windows differ" in note for note in alike)


def test_dense_is_bright_whatever_the_file_says(tmp_path: Path) -> None:
    write_slice(tmp_path / "a.dcm", film(0), modality="CR", sop_class=DX)
    write_slice(tmp_path / "b.dcm", 255 - film(0), modality="CR", sop_class=DX, PhotometricInterpretation="MONOCHROME1",
                SeriesInstanceUID="1.2.6")  # fmt: skip
    grid = Grid(size=(SIDE, SIDE), resampled=False, window=None, unit="", kind="film")
    first, second = (grid.values(read_source(one).image) for one in find_images(tmp_path))
    np.testing.assert_allclose(first, second, atol=1e-6)


# -- the same patient on both sides ------------------------------------------------------------------------------------
def brighter(picture: Image.Image) -> Image.Image:
    return picture.point(lambda value: min(255, int(value * 0.8 + 30)))


def as_jpeg(picture: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=60)
    return Image.open(stream)


def noisy(picture: Image.Image) -> Image.Image:
    grain = np.random.default_rng(0).normal(0, 6, (SIDE, SIDE))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


CHANGES = {
    "same": lambda picture: picture,
    "grey": brighter,
    "jpeg": as_jpeg,
    "noise": noisy,
    "mirror": ImageOps.mirror,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_copy_on_the_other_side_is_found(change: Callable[[Image.Image], Image.Image], tmp_path: Path) -> None:
    real, made = put_films(tmp_path / "real", range(8)), put_films(tmp_path / "made", range(20, 26), name="new{}.png")
    assert shared_patients(looked_at(real), looked_at(made)) == []
    change(Image.fromarray(film(3))).convert("L").save(made / "copy.png")
    (found,) = shared_patients(looked_at(real), looked_at(made))
    assert (found.real, found.synthetic) == ("film3.png", "copy.png")
    assert found.why


def test_copies_within_a_side_are_counted(tmp_path: Path) -> None:
    made = put_films(tmp_path, range(5))
    noisy(Image.fromarray(film(3))).save(made / "again.png")
    assert alike(looked_at(made)) == 2


def test_equal_names_are_no_sign_of_one_patient(tmp_path: Path) -> None:
    real, made = put_films(tmp_path / "real", range(3), name="a{}.png"), put_films(tmp_path / "made", range(20, 23))
    for path in list(made.iterdir()):
        path.rename(made / f"a{int(path.stem.removeprefix('film')) - 20}.png")
    assert shared_patients(looked_at(real), looked_at(made)) == []


def test_a_patient_is_known_by_id_and_a_case_by_its_background(tmp_path: Path) -> None:
    one, other = dicom_films(tmp_path / "one", range(2)), dicom_films(tmp_path / "other", range(5, 7), PatientID="D1")
    found = shared_patients(looked_at(one), looked_at(other))
    assert [(pair.real, pair.synthetic) for pair in found] == [("1.dcm", "5.dcm"), ("1.dcm", "6.dcm")]
    composed = case(tmp_path / "cases/c", seed=1)
    background = tmp_path / "backgrounds"
    (composed / "dicom_background").rename(background)
    told = {"background": {"pixel_sha256": read_source(find_images(background)[0]).image.pixel_sha256}}
    (composed / "case.json").write_text(json.dumps(told))
    found = shared_patients(looked_at(background), looked_at(tmp_path / "cases"))
    assert {pair.why for pair in found} <= {"composed on it, as its case.json says", "equal pixels"}
    assert len(found) == 3


def test_a_case_on_one_slice_of_a_volume_is_known_whichever_slice_was_looked_at(tmp_path: Path) -> None:
    stored = np.random.default_rng(3).normal(150, 20, (9, 48, 64)).astype(np.uint16)
    write_stack(tmp_path / "real/a", stored, [20.0 * k for k in range(9)], PatientID="A", SeriesInstanceUID="1.2.8")
    volume = read_source(find_images(tmp_path / "real")[0]).image
    composed = case(tmp_path / "cases/c", seed=1, pair=False)
    told = {"background": {"pixel_sha256": volume.single_slice(7).pixel_sha256}}
    (composed / "case.json").write_text(json.dumps(told))
    for slices in (1, 9):
        (found, *_) = shared_patients(looked_at(tmp_path / "real", slices), looked_at(tmp_path / "cases", 1))
        assert (found.synthetic, found.why) == ("c#1", "composed on it, as its case.json says")


def test_every_refusal_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HiResMedSynthError) as refused:
        grid_of(put_films(tmp_path / "a", range(1)), put_films(tmp_path / "b", range(2)))
    assert "at least 2 patients" in refused.value.remedy
