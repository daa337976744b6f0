"""What people labelled in a real image: marks of lesions, and a map of classes; valid once constructed."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.image import MedicalImage

MOST_MARKS = 65535  # numbers of a uint16 mask
LONGEST_CLASS, LONGEST_COMMENT, LARGEST_DIAMETER_MM = 64, 2000, 1000.0
Shape = Literal["point", "box", "segment"]
Index = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mark:
    """One lesion that a person marked.

    Args:
        class_name: "nodule", "stone" ...; at most 64 characters.
        shape: how it was marked.
        place: (slice, row, column) of the point, or a voxel within the extent of the box or segment.
        diameter_mm: size of a point's lesion, which is then a sphere; None where nobody measured it.
        corner: first (slice, row, column) of `mask`; box and segment only.
        mask: bool `[slice, row, column]`, all True for a box; cut to what it covers.
        comment: free text; stays in the JSON file, never in a DICOM object.

    Raises:
        SettingsError: a mark that can't be.
    """

    class_name: str
    shape: Shape
    place: Index
    diameter_mm: float | None = None
    corner: Index | None = None
    mask: NDArray[np.bool_] | None = None
    comment: str = ""

    def __post_init__(self) -> None:
        name, size = self.class_name, self.diameter_mm
        plain = name.isprintable() and name == name.strip() and "\\" not in name
        refuse_unless(
            plain and 0 < len(name) <= LONGEST_CLASS, f"a class needs a name of 1 to {LONGEST_CLASS} plain characters"
        )
        refuse_unless(self.shape in get_args(Shape), "a mark is a point, a box or a segment")
        refuse_unless(len(self.comment) <= LONGEST_COMMENT, f"a comment has at most {LONGEST_COMMENT} characters")
        refuse_unless(size is None or 0 < size <= LARGEST_DIAMETER_MM, f"a diameter of {size} mm can't be")
        object.__setattr__(self, "place", _index(self.place))
        if self.shape == "point":
            refuse_unless(self.corner is None and self.mask is None, "a point has no corner and no mask")
            return
        if self.corner is None or self.mask is None:
            raise SettingsError(f"a {self.shape} needs its corner and its mask", remedy="Draw it anew.")
        mask = np.asarray(self.mask)
        refuse_unless(
            mask.ndim == 3 and mask.dtype == bool and bool(mask.any()),
            f"the mask of a {self.shape} is empty or no mask",
        )
        refuse_unless(self.shape == "segment" or bool(mask.all()), "the mask of a box has holes: it is a segment")
        box = bounding_box(mask)
        cut = mask[box].copy()
        cut.flags.writeable = False
        corner = tuple(first + side.start for first, side in zip(_index(self.corner), box, strict=True))
        object.__setattr__(self, "corner", corner)
        object.__setattr__(self, "mask", cut)
        inside = all(c <= p < c + n for p, c, n in zip(self.place, corner, cut.shape, strict=True))
        refuse_unless(inside, f"the place of a {self.shape} lies outside of it")


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassMap:
    """What each voxel shows, by class: anatomy, or lesions painted as a label map.

    Args:
        labels: uint8 `[slice, row, column]`; 0 = none of the classes. Made read-only.
        names: class name by number, of the whole folder: a class need not occur in every image.

    Raises:
        SettingsError: a number has no name, or the map has no three dimensions.
    """

    labels: NDArray[np.uint8]
    names: dict[int, str]

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        refuse_unless(labels.ndim == 3 and labels.dtype == np.uint8, "a class map is uint8 [slice, row, column]")
        strange = sorted(set(np.flatnonzero(label_counts(labels)).tolist()) - {0, *self.names})
        refuse_unless(not strange, f"class {', '.join(map(str, strange[:5]))} of the map has no name")
        labels = labels.view()
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedImage:
    """An image with its labels; without any it is an example of "nothing here".

    Args:
        image: the pixels.
        marks: lesions: points, boxes, segments.
        class_map: classes of voxels, on the grid of the image; None where the folder has none.
        name: where it lies in its folder; "" where that is not known.
        patient: whose it is, "" where nobody says. It never leaves the site: no export and no report holds it.

    Raises:
        SettingsError: a mark reaches out of the image, its size in mm needs a pixel spacing that nobody knows, or the
            class map has another size.
    """

    image: MedicalImage
    marks: tuple[Mark, ...] = ()
    class_map: ClassMap | None = None
    name: str = ""
    patient: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "marks", tuple(self.marks))
        if self.class_map is not None and self.class_map.labels.shape != self.image.shape:
            raise SettingsError(
                f"the mask has the size {self.class_map.labels.shape}, its image {self.image.shape} "
                "(slices, rows, columns)",
                remedy="Export the mask on the grid of its image.",
            )
        refuse_unless(len(self.marks) <= MOST_MARKS, f"more than {MOST_MARKS} marks in one image are not kept")
        for number, mark in enumerate(self.marks, start=1):
            if mark.diameter_mm is not None and self.image.pixel_spacing_mm is None:
                raise SettingsError(
                    f"mark {number} has a size in mm, but the pixel spacing of its image is unknown",
                    remedy="Give the image a pixel spacing, or leave the size out and draw a box.",
                )
            corner, size = (
                (mark.place, (1, 1, 1)) if mark.mask is None else (mark.corner or mark.place, mark.mask.shape)
            )
            inside = all(c >= 0 and c + n <= end for c, n, end in zip(corner, size, self.image.shape, strict=True))
            refuse_unless(inside, f"mark {number} lies outside its image of {self.image.shape} (slices, rows, columns)")

    def patch(self, mark: Mark) -> tuple[Index, NDArray[np.bool_]]:
        """(corner, mask) of the voxels of a mark: a point is a sphere of its diameter, or one voxel."""
        if mark.mask is not None and mark.corner is not None:
            return mark.corner, mark.mask
        if mark.diameter_mm is None:
            return mark.place, np.ones((1, 1, 1), dtype=bool)
        spacing, radius = self.image.spacing_mm, mark.diameter_mm / 2
        axes = [
            np.arange(max(0, math.ceil(p - radius / s)), min(n - 1, math.floor(p + radius / s)) + 1)
            for p, s, n in zip(mark.place, spacing, self.image.shape, strict=True)
        ]
        away = np.ix_(*(((axis - p) * s) ** 2 for axis, p, s in zip(axes, mark.place, spacing, strict=True)))
        return (int(axes[0][0]), int(axes[1][0]), int(axes[2][0])), away[0] + away[1] + away[2] <= radius**2

    def label_map(self, numbers: Sequence[int] | None = None) -> NDArray[np.uint16]:
        """`[slice, row, column]` number of the mark (from 1, or as given), 0 elsewhere; the later mark is on top."""
        labels = np.zeros(self.image.shape, dtype=np.uint16)
        for number, mark in zip(numbers or range(1, len(self.marks) + 1), self.marks, strict=True):
            corner, mask = self.patch(mark)
            labels[tuple(slice(c, c + n) for c, n in zip(corner, mask.shape, strict=True))][mask] = number
        return labels


def label_counts(labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """`[256]` voxels of each label of a map, counted slice by slice: at once they would need 8 times the map's size."""
    counts = np.zeros(256, dtype=np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=256)
    return counts


def _index(place: Sequence[int]) -> Index:
    try:
        first, second, third = (operator.index(value) for value in place)
    except (TypeError, ValueError):
        raise SettingsError("a place is (slice, row, column), three whole numbers", remedy="Mark it anew.") from None
    return first, second, third


def refuse_unless(condition: bool, what: str) -> None:
    """Raises SettingsError about a mark where a condition doesn't hold."""
    if not condition:
        raise SettingsError(what, remedy="Correct this mark, or draw it anew.")
