"""Every voxel of a lesion lies where it was composed, in all 48 orientations and an oblique one, for three readers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from HiResMedSynthLib.export.folder import export
from Testing.export.cases import SIZE, composition_in, ct_image

ORIGIN, STEP_MM, PIXEL_MM = np.array([12.5, -30.0, 7.25]), 2.5, (0.7, 0.9)  # rows and columns differ: no mix-up passes


def orientations() -> list[NDArray[np.float64]]:
    """All 48 signed permutations of the axes, and an oblique one; columns are those of column, row, slice index."""
    turned = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            for column, (axis, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[axis, column] = sign
            turned.append(matrix)
    c, s = np.cos(0.3), np.sin(0.3)
    oblique = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return [*turned, oblique]


def rounded(points: Any) -> set[tuple[float, ...]]:
    """Points to 10 micrometres, as a set."""
    return {tuple(np.round(np.asarray(point, dtype=float), 2) + 0.0) for point in points}


def expected_points(matrix: NDArray[np.float64], mask: NDArray[Any], first: int) -> dict[tuple[int, ...], Any]:
    """LPS point of each voxel of the lesion, worked out by hand from the matrix."""
    found = {}
    for k, r, c in np.argwhere(mask == 1):
        place = ORIGIN + (k + first) * STEP_MM * matrix[:, 2]
        found[int(k), int(r), int(c)] = place + c * PIXEL_MM[1] * matrix[:, 0] + r * PIXEL_MM[0] * matrix[:, 1]
    return found


def points_of_simpleitk(file: Path) -> set[tuple[float, ...]]:
    image = sitk.ReadImage(str(file))
    voxels = np.argwhere(sitk.GetArrayFromImage(image) > 0)
    return rounded(image.TransformIndexToPhysicalPoint([int(v) for v in voxel[::-1]]) for voxel in voxels)


def points_of_highdicom(file: Path) -> set[tuple[float, ...]]:
    volume = hd.seg.segread(file).get_volume(combine_segments=True)
    return rounded((volume.affine @ [*voxel, 1.0])[:3] for voxel in np.argwhere(volume.array > 0))


def points_of_pydicom(file: Path, series: Path) -> set[tuple[float, ...]]:
    """From positions and orientations of the frames; each frame must refer to the slice that it lies on."""
    data = pydicom.dcmread(file)
    slices = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, series.iterdir())}
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    shared = data.SharedFunctionalGroupsSequence[0]
    points = []
    for number, group in enumerate(data.PerFrameFunctionalGroupsSequence):
        where = group if "PlanePositionSequence" in group else shared
        position = np.array(where.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
        row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
        source = slices[group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert np.allclose(np.array(source.ImagePositionPatient, dtype=float), position)
        for r, c in np.argwhere(frames[number]):
            points.append(position + c * column_mm * directions[:3] + r * row_mm * directions[3:])
    return rounded(points)


TURNED = orientations()
# a single slice knows two of the axes only: every fourth orientation, and the oblique one
CASES = [*((matrix, 7) for matrix in TURNED), *((matrix, 1) for matrix in TURNED[::4])]


@pytest.mark.parametrize(
    ("matrix", "slices"), CASES, ids=["".join(f"{v:+.0f}" for v in matrix.ravel()) + f"x{n}" for matrix, n in CASES]
)
def test_every_voxel_of_a_lesion_is_where_it_was_composed(
    matrix: NDArray[np.float64], slices: int, tmp_path: Path
) -> None:
    image = ct_image(
        pixel_spacing_mm=PIXEL_MM,
        directions_lps=np.stack([matrix[:, 0], matrix[:, 1]]),
        positions_lps_mm=np.array([ORIGIN + k * STEP_MM * matrix[:, 2] for k in range(7)]),
    )
    first = 0
    if slices == 1:
        image, first = image.single_slice(3), 3
    composition = composition_in(image)
    out = tmp_path / "case"
    export(composition, out)
    places = expected_points(matrix, composition.instance_mask, first)
    expected = rounded(places.values())
    assert len(expected) == np.prod(SIZE if slices > 1 else SIZE[1:])
    assert points_of_simpleitk(out / "instance_mask.nii.gz") == expected
    assert points_of_simpleitk(out / "segmentation.dcm") == expected
    assert points_of_highdicom(out / "segmentation.dcm") == expected
    assert points_of_pydicom(out / "segmentation.dcm", out / "dicom") == expected

    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(out / "dicom"))  # and the lesion's values are there
    series = sitk.ReadImage(files)
    for voxel, place in places.items():
        at = series.TransformPhysicalPointToIndex([float(v) for v in place])
        assert series[at] == composition.image.pixels[voxel]
