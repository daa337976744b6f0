"""CT slices of a site's own folder: HU through the window, the scan's circle, lung, orientation, the split."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.patient_split import held_out_by_rule
from Testing.slices import write_stack
from Training.ct_data import load_slices, lung_share, read_slices, scan_mask, to_hu, write_slices
from Training.danger_ct_sources import stored_slices
from Training.film_data import FilmSet

SIZE = 64
TRAINING = [name for name in map(str, range(60)) if not held_out_by_rule(name)]
HELD_OUT = [name for name in map(str, range(60)) if held_out_by_rule(name)]
ROW, COLUMN = np.mgrid[0:SIZE, 0:SIZE]


def disc(row: float, column: float, radius: float) -> NDArray[np.bool_]:
    return np.asarray(np.hypot(ROW - row, COLUMN - column) < radius)


def chest(*, lungs_hu: float | None = -850, padding: float = -2000, seed: int = 0) -> NDArray[np.int16]:
    """A body with two lungs of different size, the spine behind; noise; padding outside the inscribed circle."""
    hu = np.full((SIZE, SIZE), -1000.0)
    hu[disc(32, 32, 26)] = 40
    if lungs_hu is not None:
        hu[disc(32, 20, 9) | disc(30, 45, 7)] = lungs_hu
    hu[disc(50, 32, 4)] = 500
    hu += np.random.default_rng(seed).normal(0, 8, hu.shape)
    hu[~disc(31.5, 31.5, 32)] = padding
    return np.asarray(hu.round(), dtype=np.int16)


def series(
    folder: Path, patient: str, slices: list[NDArray[np.int16]], step_mm: float = 5, **attributes: object
) -> Path:
    given = {
        "PatientID": patient,
        "SeriesInstanceUID": f"1.2.{int(hashlib.sha256(str(folder).encode()).hexdigest()[:9], 16)}",
    }
    heights = [step_mm * k for k in range(len(slices))]
    return write_stack(folder, np.stack(slices) + np.int16(1024), heights, **(given | attributes))  # type: ignore[arg-type]


def load(tmp_path: Path, *folders: Path) -> FilmSet:
    return load_slices(list(folders) or [tmp_path / "scans"], tmp_path / "cache", canvas_px=SIZE)


def test_lung_slices_in_hu_with_the_scan_circle_as_mask(tmp_path: Path) -> None:
    first, second = chest(seed=1), chest(seed=2)
    series(tmp_path / "scans" / "a", TRAINING[0], [first, chest(lungs_hu=None), second], PixelSpacing=[0.8, 0.8])
    series(tmp_path / "scans" / "b", HELD_OUT[0], [chest(seed=3)], PixelSpacing=[0.6, 0.6])
    slices = load(tmp_path)
    assert [(film.patient, film.held_out) for film in slices.films] == [(TRAINING[0], False)] * 2 + [
        (HELD_OUT[0], True)
    ]
    assert [film.spacing_mm for film in slices.films] == pytest.approx([0.8, 0.8, 0.6])
    assert slices.spacing_mm == pytest.approx(0.8)
    circle = disc(31.5, 31.5, 32)
    assert (slices.masks() == circle).all()
    assert (slices.pixels[:, ~circle] == -1).all()
    np.testing.assert_allclose(to_hu(slices.pixels[0])[circle], first[circle].clip(-1200, 600), atol=0.02)
    np.testing.assert_allclose(to_hu(slices.pixels[1])[circle], second[circle].clip(-1200, 600), atol=0.02)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        ([-1, 0, 0, 0, 1, 0], lambda hu: hu[:, ::-1]),
        ([1, 0, 0, 0, -1, 0], lambda hu: hu[::-1]),
        ([0, 1, 0, 1, 0, 0], lambda hu: hu.T),
    ],
)
def test_slices_are_turned_front_up_and_left_to_the_right(
    tmp_path: Path, orientation: list[int], stored: object
) -> None:
    hu = chest()
    series(tmp_path / "scans" / "a", TRAINING[0], [hu])
    turned = np.ascontiguousarray(stored(hu))  # type: ignore[operator]
    series(tmp_path / "scans" / "b", HELD_OUT[0], [turned], ImageOrientationPatient=orientation)
    slices = load(tmp_path)
    np.testing.assert_array_equal(slices.pixels[0], slices.pixels[1])


def test_what_is_no_axial_ct_of_the_matrix_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = tmp_path / "scans"
    series(scans / "a", TRAINING[0], [chest()])
    series(scans / "b", HELD_OUT[0], [chest()])
    series(scans / "small", TRAINING[1], [chest()[::2, ::2]])
    series(scans / "coronal", TRAINING[1], [chest()], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    series(scans / "scout", TRAINING[1], [chest()], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series(scans / "mr", TRAINING[1], [chest()], Modality="MR")
    slices = load(tmp_path)
    assert {film.patient for film in slices.films} == {TRAINING[0], HELD_OUT[0]}
    told = capsys.readouterr().err
    assert "1 series of another matrix than 64 x 64" in told
    assert "1 series that are not axial" in told
    assert "2 DICOM files that are no CT slice" in told


def volume(
    path: Path, slices: list[NDArray[np.int16]], direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1)
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.stack(slices))
    image.SetSpacing((0.7, 0.7, 5.0))
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


def test_volumes_take_the_patient_from_their_name(tmp_path: Path) -> None:
    hu = chest()
    volume(tmp_path / "scans" / f"{TRAINING[0]}_chest_1.nrrd", [hu, chest(seed=5)])
    volume(tmp_path / "scans" / f"{HELD_OUT[0]}_x.nii.gz", [hu[::-1, ::-1]], (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    volume(tmp_path / "scans" / f"{TRAINING[1]}_labels.nrrd", [np.asarray(hu > -500, dtype=np.int16)])
    slices = load(tmp_path)
    assert [film.patient for film in slices.films] == [TRAINING[0], TRAINING[0], HELD_OUT[0]] or [
        film.patient for film in slices.films
    ] == [HELD_OUT[0], TRAINING[0], TRAINING[0]]
    same = [slices.side(held_out=True)[0], slices.side(held_out=False)[0]]
    np.testing.assert_array_equal(slices.pixels[same[0]], slices.pixels[same[1]])
    assert slices.films[0].spacing_mm == pytest.approx(0.7)


def test_archives_and_packed_slices_are_read(tmp_path: Path) -> None:
    series(tmp_path / "loose", TRAINING[0], [chest(seed=1)])
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "one.zip", "w") as archive:
        for path in (tmp_path / "loose").iterdir():
            archive.write(path, f"../{path.name}")
    packed = tmp_path / "packed"
    packed.mkdir()
    steps = np.diff(chest(seed=2)[np.newaxis].astype(np.int32), axis=2, prepend=0)
    zigzag = np.where(steps >= 0, 2 * steps, -2 * steps - 1)
    np.savez(packed / "slices.npz", lo=(zigzag & 255).astype(np.uint8), hi=(zigzag >> 8).astype(np.uint8))
    (packed / "slices.csv").write_text(f"patient_id,pixel_spacing_mm\n{HELD_OUT[0]},0.9\n")
    slices = load(tmp_path, tmp_path / "zipped", packed)
    assert [film.patient for film in slices.films] == [TRAINING[0], HELD_OUT[0]]
    for pixels, seed in zip(slices.pixels, (1, 2), strict=True):
        inside = disc(31.5, 31.5, 30)
        np.testing.assert_allclose(to_hu(pixels)[inside], chest(seed=seed)[inside].clip(-1200, 600), atol=0.02)


def test_near_copies_are_thinned_out(tmp_path: Path) -> None:
    series(tmp_path / "scans" / "a", TRAINING[0], [chest(seed=k) for k in range(10)], step_mm=1.25)
    series(tmp_path / "scans" / "b", HELD_OUT[0], [chest(seed=k) for k in range(40)], step_mm=2.5)
    slices = load(tmp_path)
    assert [len(slices.side(held_out=side)) for side in (False, True)] == [5, 32]


def test_one_damaged_slice_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = series(tmp_path / "scans" / "a", TRAINING[0], [chest(seed=k) for k in range(3)])
    series(tmp_path / "scans" / "b", HELD_OUT[0], [chest()])
    cut = sorted(folder.iterdir())[1]
    cut.write_bytes(cut.read_bytes()[:-4000])
    slices = load(tmp_path)
    assert len(slices.side(held_out=False)) == 2
    told = capsys.readouterr().err
    assert cut.name in told
    assert "1 damaged DICOM files" in told


def test_mostly_damaged_folder_and_one_patient_are_refused(tmp_path: Path) -> None:
    series(tmp_path / "scans" / "a", TRAINING[0], [chest()])
    with pytest.raises(ReadError, match="one patient"):
        load(tmp_path)
    for number in range(2):
        (tmp_path / "scans" / f"{number}_cut.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    with pytest.raises(ReadError, match="2 of 3 files"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="no axial chest CT slice"):
        load(tmp_path, tmp_path / "empty")


def test_patients_all_on_one_side_give_one_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for patient in TRAINING[:3]:
        series(tmp_path / "scans" / patient, patient, [chest()])
    slices = load(tmp_path)
    chosen = min(TRAINING[:3], key=lambda patient: hashlib.sha256(patient.encode()).hexdigest())
    assert {film.patient for film in slices.films if film.held_out} == {chosen}
    assert "one was chosen to be held out" in capsys.readouterr().err


def test_a_preparation_that_is_cut_off_leaves_no_half_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for patient in (TRAINING[0], HELD_OUT[0]):
        series(tmp_path / "scans" / patient, patient, [chest()])
    whole = np.lib.format.write_array

    def cut(stream: Any, array: NDArray[Any], **options: Any) -> None:
        if array.dtype != np.uint16:
            raise KeyboardInterrupt
        whole(stream, array, **options)

    with monkeypatch.context() as patched:
        patched.setattr(np.lib.format, "write_array", cut)
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path)
    assert len(load(tmp_path).films) == 2


def test_packed_set_reads_back_the_same(tmp_path: Path) -> None:
    for patient in (TRAINING[0], HELD_OUT[0]):
        series(tmp_path / "scans" / patient, patient, [chest()])
    slices = load(tmp_path)
    write_slices(slices, tmp_path / "packed.npz")
    again = read_slices(tmp_path / "packed.npz")
    assert again.films == slices.films
    np.testing.assert_array_equal(again.pixels, slices.pixels)
    np.testing.assert_array_equal(again.masks(), slices.masks())


def wrong_archives(folder: Path, whole: Path) -> Iterator[Path]:
    """Files that are no archive of these arrays, each in the place of an .npz."""
    path = folder / "wrong.npz"
    content = whole.read_bytes()
    for wrong in (b"", b"PK no archive", content[:200], content[:150] + bytes(20) + content[170:]):
        path.write_bytes(wrong)
        yield path
    np.savez(path, other=np.zeros(3))
    yield path
    np.savez(path, **{name: np.zeros((2, 3)) for name in ("lo", "hi", "pixels", "masks")}, name=["a"], patient=["a"])
    yield path
    with path.open("wb") as stream:
        np.save(stream, np.zeros((2, 3, 3)))
    yield path


def test_what_is_no_packed_set_is_told(tmp_path: Path) -> None:
    for patient in (TRAINING[0], HELD_OUT[0]):
        series(tmp_path / "scans" / patient, patient, [chest()])
    slices = load(tmp_path)
    write_slices(slices, tmp_path / "packed.npz")
    for wrong in wrong_archives(tmp_path, tmp_path / "packed.npz"):
        with pytest.raises(ReadError, match="no packed slices"):
            read_slices(wrong)
    one_less = FilmSet(
        pixels=slices.pixels, films=slices.films[1:], spacing_mm=slices.spacing_mm, inside=slices.masks()
    )
    write_slices(one_less, tmp_path / "packed.npz")
    with pytest.raises(ReadError, match="different lengths"):
        read_slices(tmp_path / "packed.npz")


def test_packed_slices_that_cant_be_read_are_told(tmp_path: Path) -> None:
    packed, whole = tmp_path / "packed", tmp_path / "whole.npz"
    packed.mkdir()
    np.savez(whole, lo=np.zeros((1, SIZE, SIZE), np.uint8), hi=np.zeros((1, SIZE, SIZE), np.uint8))
    (packed / "slices.csv").write_text("patient_id,pixel_spacing_mm\nx,0.9\n")
    for wrong in wrong_archives(tmp_path, whole):
        (packed / "slices.npz").write_bytes(wrong.read_bytes())
        with pytest.raises(ReadError, match=r"slices.npz or slices.csv can't be read"):
            load(tmp_path, packed)
        with pytest.raises(ReadError, match=r"slices.npz or slices.csv can't be read"):
            list(stored_slices(packed / "slices.npz"))
    (packed / "slices.npz").write_bytes(whole.read_bytes())
    (packed / "slices.csv").write_text("patient_id,pixel_spacing_mm\nx\n")
    with pytest.raises(ReadError, match=r"slices.npz or slices.csv can't be read"):
        load(tmp_path, packed)


def test_scan_circle_is_found_where_the_padding_has_the_value_of_air() -> None:
    circle = disc(36, 28, 30)  # its centre is not the image's
    hu = np.asarray(chest(padding=-1000), dtype=np.float32).clip(-1024)
    rng = np.random.default_rng(0)
    hu[hu < -900] = np.maximum(-1024, rng.normal(-1010, 30, int((hu < -900).sum()))).round()
    hu[~circle] = -1024
    mask = scan_mask(hu)
    assert (mask != circle).mean() < 0.01
    clean = np.where(disc(32, 32, 10), np.float32(40), np.float32(-1024))  # air without noise up to the skin
    assert scan_mask(clean)[disc(31.5, 31.5, 31)].all()
    assert scan_mask(np.full((SIZE, SIZE), 40, dtype=np.float32)).all()


def test_gas_of_the_bowel_is_no_lung() -> None:
    inside = disc(31.5, 31.5, 32)
    assert lung_share(chest().astype(np.float32), inside) > 0.1
    assert lung_share(chest(lungs_hu=-1000).astype(np.float32), inside) == 0
    assert lung_share(chest(lungs_hu=None).astype(np.float32), inside) == 0
