"""A marked voxel stands at the same LPS point by MedicalImage, by SimpleITK and in written DICOM, however it lies."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.slices import write_slice

SHAPE, MARK = (4, 5, 6), (2, 3, 1)
SPACING = (3.0, 0.8, 0.5)  # slice, row, column
ORIGIN = (-12.5, 30.25, 7.0)


def orientations() -> list[np.ndarray]:
    """All 48 matrices whose columns are +-axes: directions of the column, row and slice index."""
    orders, signs = itertools.permutations(range(3)), itertools.product((1.0, -1.0), repeat=3)
    return [np.eye(3)[:, order] * np.array(sign) for order, sign in itertools.product(orders, signs)]


def oblique() -> np.ndarray:
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.3, -0.5, 0.9)
    return np.array(turn.GetMatrix()).reshape(3, 3)


ALL = [*orientations(), oblique(), oblique() @ np.diag([1.0, 1.0, -1.0])]


def marked() -> np.ndarray:
    pixels = np.zeros(SHAPE, np.int16)
    pixels[MARK] = 1000
    return pixels


def itk_image(matrix: np.ndarray) -> sitk.Image:
    volume = sitk.GetImageFromArray(marked())
    volume.SetSpacing(SPACING[::-1])
    volume.SetOrigin(ORIGIN)
    volume.SetDirection(matrix.ravel().tolist())
    return volume


def check(image: MedicalImage, point_lps_mm: np.ndarray) -> None:
    mark = np.argwhere(image.pixels == image.pixels.max())
    assert len(mark) == 1
    assert np.allclose(image.index_to_lps(mark), point_lps_mm, atol=1e-4)
    assert np.allclose(image.lps_to_index(point_lps_mm), mark, atol=1e-4)
    assert image.spacing_mm == pytest.approx(SPACING)
    assert image.volume_problem is None


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz", "mha"])
@pytest.mark.parametrize("matrix", ALL, ids=range(len(ALL)))
def test_volumes(matrix: np.ndarray, suffix: str, tmp_path: Path) -> None:
    volume = itk_image(matrix)
    sitk.WriteImage(volume, str(tmp_path / f"a.{suffix}"))
    point = np.array(volume.TransformIndexToPhysicalPoint(MARK[::-1]))
    image = read_image(tmp_path / f"a.{suffix}")
    check(image, point)
    index = int(np.argwhere(image.pixels == image.pixels.max())[0][0])  # a left-handed volume is turned over
    one = read_image(tmp_path / f"a.{suffix}", slice_index=index)
    steps = np.diff(np.asarray(image.positions_lps_mm) @ image.normal_lps)
    assert (steps > 0).all()
    assert one.shape == (1, *SHAPE[1:])
    assert np.allclose(one.index_to_lps([(0, *MARK[1:])]), point, atol=1e-4)


@pytest.mark.parametrize("matrix", ALL, ids=range(len(ALL)))
def test_dicom_series(matrix: np.ndarray, tmp_path: Path) -> None:
    """Slices in order along their normal, whichever way the volume was stacked; SimpleITK reads the same point."""
    volume = itk_image(matrix)
    pixels = marked().astype(np.uint16)
    for k in range(SHAPE[0]):
        corner = volume.TransformIndexToPhysicalPoint((0, 0, k))
        write_slice(
            tmp_path / f"{k}.dcm",
            pixels[k],
            ImagePositionPatient=[round(v, 6) for v in corner],
            ImageOrientationPatient=[float(f"{v:.9f}") for v in matrix[:, :2].T.ravel()],
            PixelSpacing=list(SPACING[1:]),
            SliceThickness=SPACING[0],
        )
    point = np.array(volume.TransformIndexToPhysicalPoint(MARK[::-1]))
    image = read_image(tmp_path)
    check(image, point)
    assert (image.slice_steps_mm > 0).all()
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    back = sitk.ReadImage(files)
    array = sitk.GetArrayViewFromImage(back)
    index = np.argwhere(array == array.max())[0]
    assert np.allclose(back.TransformIndexToPhysicalPoint([int(v) for v in index[::-1]]), point, atol=1e-3)


@pytest.mark.parametrize("matrix", [np.eye(3), oblique()], ids=["axial", "oblique"])
def test_a_single_slice_keeps_its_place(matrix: np.ndarray, tmp_path: Path) -> None:
    volume = itk_image(matrix)
    image = read_image(
        write_slice(
            tmp_path / "a.dcm",
            marked().astype(np.uint16)[MARK[0]],
            ImagePositionPatient=[round(v, 6) for v in volume.TransformIndexToPhysicalPoint((0, 0, MARK[0]))],
            ImageOrientationPatient=[float(f"{v:.9f}") for v in matrix[:, :2].T.ravel()],
            PixelSpacing=list(SPACING[1:]),
            SliceThickness=SPACING[0],
        )
    )
    check(image, np.array(volume.TransformIndexToPhysicalPoint(MARK[::-1])))


finite = st.floats(-500, 500, allow_nan=False)


@settings(max_examples=100, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    origin=st.tuples(finite, finite, finite),
    gaps=st.lists(st.floats(0.3, 9), min_size=0, max_size=6),
    spacing=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
    where=st.tuples(*[st.floats(0, 1)] * 3),
    shear=st.floats(-0.4, 0.4),
    downwards=st.booleans(),
)
def test_index_to_lps_and_back(
    angles: tuple[float, ...],
    origin: tuple[float, ...],
    gaps: list[float],
    spacing: tuple[float, float],
    where: tuple[float, ...],
    shear: float,
    downwards: bool,
) -> None:
    """Uneven, tilted and left-handed stacks too."""
    turn = sitk.Euler3DTransform()
    turn.SetRotation(*angles)
    matrix = np.array(turn.GetMatrix()).reshape(3, 3)
    heights = np.concatenate([[0.0], np.cumsum(gaps)]) * (-1 if downwards else 1)
    image = MedicalImage(
        pixels=np.zeros((len(heights), 7, 9), np.int16),
        modality="CT",
        pixel_spacing_mm=spacing,
        spacing_source="header",
        positions_lps_mm=np.array(origin) + heights[:, np.newaxis] * (matrix[:, 2] + shear * matrix[:, 1]),
        directions_lps=matrix[:, :2].T,
    )
    index = np.array([where]) * (len(heights) - 1, 6, 8)
    assert np.allclose(image.lps_to_index(image.index_to_lps(index)), index, atol=1e-6)
