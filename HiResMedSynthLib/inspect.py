"""describe(image): what was understood of an image, in words and as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from HiResMedSynthLib.image import MedicalImage

PLANES = ("sagittal", "coronal", "axial")
SIDES = (
    ("right", "left"),
    ("front", "back"),
    ("feet", "head"),
)  # LPS: x grows to the left, y to the back, z to the head


def facts_of(image: MedicalImage) -> dict[str, Any]:
    """The same account as `describe`, as values for JSON."""
    spacing = image.pixel_spacing_mm
    window = image.window
    return {
        "slices": image.slices,
        "rows": image.rows,
        "columns": image.columns,
        "modality": image.modality,
        "units": image.units,
        "pixel_type": image.pixels.dtype.name,
        "bits_stored": image.bits_stored,
        "values": [float(image.pixels.min()), float(image.pixels.max())],
        "pixel_spacing_mm": None if spacing is None else list(spacing),
        "spacing_source": image.spacing_source,
        "slice_spacing_mm": image.slice_spacing_mm if image.slices > 1 else None,
        "slice_thickness_mm": image.slice_thickness_mm,
        "plane": plane_of(image),
        "photometric": image.photometric,
        "window": None if window is None else [window.center, window.width],
        "volume_problem": image.volume_problem,
        "pixel_sha256": image.pixel_sha256,
        "oddities": list(image.oddities),
    }


def plane_of(image: MedicalImage) -> str:
    """The anatomical plane of the slices, by their normal; "oblique" beyond 10 degrees."""
    cosines = np.abs(image.normal_lps)
    axis = int(np.argmax(cosines))
    return PLANES[axis] if cosines[axis] > np.cos(np.radians(10)) else f"oblique, nearest to {PLANES[axis]}"


def describe(image: MedicalImage) -> str:
    """A readable account of an image, several lines."""
    facts = facts_of(image)
    size = f"{image.rows} rows x {image.columns} columns"
    if image.slices > 1:
        size = f"{image.slices} slices of {size}"
    spacing = facts["pixel_spacing_mm"]
    if spacing is None:
        where = "unknown; give --spacing-mm ROW[,COLUMN] before sizes in mm can be drawn"
    else:
        said = "from the header" if image.spacing_source == "header" else "assumed, as given"
        where = f"{spacing[0]:g} mm between rows, {spacing[1]:g} mm between columns ({said})"
    lines = [
        f"size        {size}",
        f"modality    {image.modality}, values in {'Hounsfield units' if image.units == 'HU' else 'stored units'}",
        f"values      {facts['values'][0]:g} to {facts['values'][1]:g}, {image.pixels.dtype.name}"
        + (f", {image.bits_stored} bits stored" if image.bits_stored else ""),
        f"spacing     {where}",
    ]
    if image.slices > 1:
        lines.append(f"slices      every {image.slice_spacing_mm:g} mm, {_thickness(image)}")
        first, last = (image.index_to_lps([(k, image.rows / 2, image.columns / 2)])[0] for k in (0, image.slices - 1))
        axis = int(np.argmax(np.abs(last - first)))
        side = SIDES[axis][int(last[axis] > first[axis])]
        lines.append(f"order       slice 0 first, towards the {side}")
    if image.slices > 1 or image.units == "HU":
        lines.append(f"plane       {facts['plane']}")
    lines.append(
        f"shown       {image.photometric}"
        + ("" if image.window is None else f", window centre {image.window.center:g}, width {image.window.width:g}")
    )
    problem = image.volume_problem
    if image.slices > 1:
        lines.append(f"3-D lesions {'possible' if problem is None else f'refused: {problem}; use --slice N'}")
    lines.append(f"sha256      {image.pixel_sha256}")
    lines += ["odd         " + oddity for oddity in image.oddities] or ["odd         nothing"]
    return "\n".join(lines)


def _thickness(image: MedicalImage) -> str:
    thickness = image.slice_thickness_mm
    return "thickness unknown" if thickness is None else f"{thickness:g} mm thick"
