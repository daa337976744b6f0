"""Outlines: a mask file or a box -> (corner, inside) on the image's own voxels, or why it doesn't meet the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.image import MedicalImage

Outline = tuple[tuple[int, int, int], NDArray[np.bool_]]
LARGEST_SHARE = 0.5  # of the image: an outline of more leaves nothing to cut the lesion from
SAME_PLACE = 0.1  # of a voxel
REDRAW = "Export the mask on the grid of the image (same size, spacing and position)."


def outline_from_mask(image: MedicalImage, mask: MedicalImage, *, label: int | None = None) -> Outline:
    """The labelled voxels, cropped to their box.

    Args:
        image: what was outlined.
        mask: label map, or shares 0..1, of which 0.5 and more count; one without geometry (a PNG) has to have the
            image's size.
        label: which label; None: the only one there is.

    Raises:
        BankError: empty, of the whole image, of several labels, of values that are no labels, or it doesn't lie on the
            image's voxels.
    """
    labels = _labels(mask.pixels)
    found = [int(value) for value in np.unique(labels) if value > 0]
    if not found:
        raise BankError("the mask is empty", remedy="Draw the outline of the lesion, then export it again.")
    if label is None and len(found) > 1:
        shown = ", ".join(map(str, found[:8]))
        raise BankError(f"the mask holds several labels ({shown})", remedy="Choose one: --label NUMBER.")
    if label is not None and label not in found:
        raise BankError(f"the mask has no label {label}", remedy=f"Choose one of: {', '.join(map(str, found[:8]))}.")
    labelled = labels == (label if label is not None else found[0])
    whole = np.zeros(image.shape, dtype=bool)
    offset = _offset(image, mask)
    low = [max(0, o) for o in offset]
    high = [min(n, o + m) for n, o, m in zip(image.shape, offset, mask.shape, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        source = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, offset, strict=True))
        whole[target] = labelled[source]
    if int(whole.sum()) < int(labelled.sum()):
        lost = "doesn't meet the image" if not whole.any() else "reaches beyond the image"
        raise BankError(f"the mask {lost}", remedy=REDRAW)
    return _cropped(whole)


def outline_from_box(image: MedicalImage, box: tuple[float, ...]) -> Outline:
    """A box: ROW, COLUMN, ROW, COLUMN of two opposite corners[, first and last SLICE], ends included.

    Raises:
        BankError: it reaches out of the image, or covers nearly all of it.
    """
    if len(box) == 4 and image.slices > 1:
        raise BankError(
            f"the box needs its slices too: this image has {image.slices}",
            remedy="Give --box ROW,COL,ROW,COL,SLICE,SLICE, or choose one --slice.",
        )
    planes = sorted(round(value) for value in (*box[4:], 0, 0)[:2])
    rows, columns = sorted(round(box[k]) for k in (0, 2)), sorted(round(box[k]) for k in (1, 3))
    for name, (low, high), size in zip(
        ("slices", "rows", "columns"), (planes, rows, columns), image.shape, strict=True
    ):
        if low < 0 or high >= size:
            raise BankError(
                f"the box reaches beyond the image in its {name} (0 to {size - 1})", remedy="Draw it inside the image."
            )
    whole = np.zeros(image.shape, dtype=bool)
    whole[planes[0] : planes[1] + 1, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    return _cropped(whole)


def _labels(pixels: NDArray[Any]) -> NDArray[Any]:
    """The mask as whole numbers; shares 0..1 become label 1 from 0.5 on."""
    if np.issubdtype(pixels.dtype, np.integer) or np.array_equal(pixels, np.round(pixels)):
        return pixels
    if np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1:
        return np.asarray(pixels >= 0.5, dtype=np.uint8)
    raise BankError(
        "the mask holds values that are neither labels (1, 2, ...) nor shares from 0 to 1",
        remedy="Export it as a label map: a whole number in the lesion, 0 elsewhere.",
    )


def _offset(image: MedicalImage, mask: MedicalImage) -> tuple[int, int, int]:
    """Index in the image of the mask's first voxel."""
    if mask.pixel_spacing_mm is None:
        if mask.shape != image.shape:
            raise BankError(
                f"the mask has {_size(mask)} voxels, the image {_size(image)}: they don't meet", remedy=REDRAW
            )
        return 0, 0, 0
    fine = image.spacing_mm
    theirs = (mask.slice_spacing_mm if mask.slices > 1 else fine[0], *mask.pixel_spacing_mm)
    turned = np.abs(mask.directions_lps - image.directions_lps).max() > 1e-2
    if turned or not np.allclose(theirs, fine, rtol=1e-2):
        raise BankError("the mask is on other voxels than the image (spacing or direction)", remedy=REDRAW)
    assert mask.positions_lps_mm is not None
    ends = image.lps_to_index(mask.positions_lps_mm[[0, -1]])
    # an index beyond the first or last slice isn't extrapolated: seen by the way back
    back = np.abs(image.index_to_lps(ends) - mask.positions_lps_mm[[0, -1]]).max()
    first = np.round(ends[0]).astype(int)
    span = mask.slices - 1
    on_grid = np.abs(ends[0] - first).max() <= SAME_PLACE and abs(ends[1, 0] - first[0] - span) <= SAME_PLACE
    if back > SAME_PLACE * max(fine) or not on_grid:
        raise BankError("the mask lies elsewhere than the image: they don't meet", remedy=REDRAW)
    return int(first[0]), int(first[1]), int(first[2])


def _cropped(whole: NDArray[np.bool_]) -> Outline:
    share = float(whole.mean())
    if share > LARGEST_SHARE:
        raise BankError(
            f"the outline covers {100 * share:.0f} % of the image", remedy="Outline the lesion only, in a wider image."
        )
    box = bounding_box(whole)
    return (box[0].start, box[1].start, box[2].start), whole[box]


def _size(image: MedicalImage) -> str:
    return " x ".join(map(str, image.shape))
