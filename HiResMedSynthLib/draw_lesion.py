"""draw_shape(request, ...) -> DrawnShape: one lesion of a case, drawn and rendered on the background's voxels.

It decides everything but the place, at which `place_lesion` sets it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.case import HALF, LesionRequest, Point
from HiResMedSynthLib.choices import FusionName
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.fusion import edge_band
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.film_shadow import blurred, without_noise
from HiResMedSynthLib.joining.fit import at_resolution, matte_width_mm
from HiResMedSynthLib.lesion.bank import Bank
from HiResMedSynthLib.lesion.deform import Deformation
from HiResMedSynthLib.lesion.generators import Generator, Wish, generator_for
from HiResMedSynthLib.lesion.lesion import Lesion
from HiResMedSynthLib.lesion.render import render, render_projection
from HiResMedSynthLib.placement.danger_map import MAY_TOUCH, MUST_TOUCH
from HiResMedSynthLib.placement.sizes import shipped_sizes

Index = tuple[int, int, int]
FRACTION_STEPS = 64  # places are whole voxels plus n/64: exact in binary, so a pinned place gives the same pixels
SOFT_TISSUE_HU = 40.0
LUNG_HU = -860.0
SOFT_TYPES = ("part-solid", "ground-glass")
THICKEST_SLICE_MM = 2.5  # beyond, a rim made steeper for its enlargement gets too steep (measured in slices of 5 mm)


@dataclass(frozen=True, kw_only=True, eq=False)
class DrawnShape:
    """A lesion rendered on the background's voxel size, not yet at a place.

    Args:
        bank_entry, origin, type, diameter_mm: what it is.
        allow: danger classes that this lesion may touch.
        needs: danger class that its footprint has to touch, or None.
        anchor: voxel that was asked for, or None: to be drawn.
        fraction: (slice, row, column) offset of its centre from the anchor, multiples of 1/64 voxel.
        corner: index of the patch's first voxel relative to the anchor.
        alpha: uint16 patch `[slice, row, column]`; its non-zero voxels are the footprint.
        density: float32 patch: HU of the lesion (CT) or millimetres of water added to the ray (film).
        contrast_share: 0..1, where in a range of contrast or CNR this lesion stands.
        source_background_hu: parenchyma around the lesion where it comes from; None if procedural.
        source_noise_hu: noise there; None if unknown.
        details: drawn values for the record.
    """

    bank_entry: str
    origin: str
    type: str
    diameter_mm: float
    allow: tuple[str, ...]
    needs: str | None
    anchor: Index | None
    fraction: Point
    corner: Index
    alpha: NDArray[np.uint16]
    density: NDArray[np.float32]
    contrast_share: float
    source_background_hu: float | None
    source_noise_hu: float | None
    details: dict[str, Any]

    @property
    def footprint(self) -> NDArray[np.bool_]:
        """Voxels that the lesion changes."""
        return self.alpha > 0

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels that belong to the lesion (alpha >= 0.5)."""
        return self.alpha >= HALF

    def corner_at(self, anchor: Index) -> Index:
        """Corner of the patch in the background when the lesion stands at `anchor`."""
        return anchor[0] + self.corner[0], anchor[1] + self.corner[1], anchor[2] + self.corner[2]

    def center_at(self, anchor: Index) -> Point:
        """Centre of the lesion in the background when it stands at `anchor`."""
        return anchor[0] + self.fraction[0], anchor[1] + self.fraction[1], anchor[2] + self.fraction[2]


def draw_shape(
    request: LesionRequest,
    ground: Ground,
    bank: Bank,
    rng: np.random.Generator,
    *,
    fusion: FusionName,
    generator: Generator | None = None,
) -> DrawnShape:
    """A lesion's form, size and texture, drawn from its own stream.

    Args:
        request, ground, bank, rng, fusion: what is wanted, where, from what.
        generator: that of the request, where the caller has it already.

    Raises:
        SettingsError: a type that this kind of picture can't hold.
        ModelError: the generator's model is missing or changed.
        BankError: an entry that doesn't exist.
    """
    diameter_mm = _diameter_mm(request, ground, rng)
    wish = _wish(request, ground, diameter_mm)
    drawn = (generator or generator_of(request)).draw(wish, bank, rng)
    lesion, deformation = drawn.lesion, drawn.deformation
    jitter = rng.integers(-FRACTION_STEPS // 2 + 1, FRACTION_STEPS // 2, size=3) / FRACTION_STEPS
    contrast_share = float(rng.uniform())
    anchor, fraction = _anchor(request, ground, jitter, diameter_mm)
    details: dict[str, Any] = {"deformation": deformation.record()}
    if drawn.model:
        details["generator"] = drawn.model
    spacing = ground.image.spacing_mm
    if ground.is_projection:
        corner, alpha, density, told = _shadow(
            lesion, deformation, ground, diameter_mm=diameter_mm, centre=fraction[1:], at_sharpness=fusion == "better"
        )
        details |= told
    else:
        patch = render(lesion, deformation, diameter_mm=diameter_mm, spacing_mm=spacing, centre=fraction)
        corner, alpha, density = patch.corner, patch.alpha, patch.intensity_hu.astype(np.float32)
        if fusion == "better":
            corner, alpha, density, sigma_mm = at_resolution(
                corner, alpha, density, spacing_mm=spacing, resolution=ground.resolution,
                slice_thickness_mm=_thickness_mm(ground.image, alpha.shape[0]),
                enlarged=_enlarged(lesion, diameter_mm, slice_mm=spacing[0]),
            )  # fmt: skip
            details["resolution"] = {
                "edge_width_mm": ground.resolution.edge_width_mm,
                "usual_width_mm": ground.resolution.usual_width_mm,
                "measured_on": ground.resolution.source,
                "blurred_by_mm": round(sigma_mm, 3),
            }
        if ground.image.slices == 1:
            corner, alpha, density = _cut(corner, alpha, density)
    if fusion == "paper":
        corner, alpha, density = _with_edge_band(corner, alpha, density)
    corner, alpha, density = _cropped(corner, alpha, density)
    return DrawnShape(
        bank_entry=lesion.card.name,
        origin=lesion.card.origin,
        type=lesion.card.type if request.type == "any" else request.type,
        diameter_mm=diameter_mm,
        allow=MAY_TOUCH.get(request.type, ()),
        needs=MUST_TOUCH.get(request.type),
        anchor=anchor,
        fraction=fraction,
        corner=corner,
        alpha=alpha,
        density=density,
        contrast_share=contrast_share,
        source_background_hu=lesion.card.background_hu,
        source_noise_hu=lesion.card.noise_hu,
        details=details,
    )


def _shadow(
    lesion: Lesion,
    deformation: Deformation,
    ground: Ground,
    *,
    diameter_mm: float,
    centre: tuple[float, float],
    at_sharpness: bool,
) -> tuple[Index, NDArray[np.uint16], NDArray[np.float32], dict[str, Any]]:
    """(corner, alpha, mm of water, details) of the lesion on a film; at the film's sharpness without its CT's noise."""
    if at_sharpness and lesion.card.noise_hu is not None:
        lesion = replace(lesion, intensity_hu=without_noise(lesion.intensity_hu, lesion.alpha))
    spacing = ground.image.spacing_mm[1:]
    film = render_projection(
        lesion,
        deformation,
        diameter_mm=diameter_mm,
        pixel_spacing_mm=spacing,
        centre=centre,
        background_hu=SOFT_TISSUE_HU if ground.domain == "kub" else LUNG_HU,
    )
    corner, alpha, water, details = film.corner, film.alpha, film.water_mm, {}
    if at_sharpness:
        sharpness, voxel_mm = ground.film_sharpness, lesion.voxel_mm
        own_mm = matte_width_mm(lesion.alpha, spacing_mm=(voxel_mm, voxel_mm, voxel_mm))
        corner, alpha, water, sigma_mm = blurred(
            corner, alpha, water, spacing_mm=spacing, film_width_mm=sharpness.edge_width_mm,
            own_width_mm=own_mm * diameter_mm / lesion.card.diameter_mm,
        )  # fmt: skip
        details["resolution"] = {
            "edge_width_mm": sharpness.edge_width_mm,
            "measured_on": sharpness.source,
            "blurred_by_mm": round(sigma_mm, 3),
        }
    return (0, *corner), alpha[np.newaxis], water[np.newaxis], details


def _enlarged(lesion: Lesion, diameter_mm: float, *, slice_mm: float) -> float:
    """How many times larger than its source the lesion is, where that blurs its rim.

    The shares of ground glass are its substance; thick slices blur more than that.
    """
    if lesion.card.type in SOFT_TYPES or slice_mm > THICKEST_SLICE_MM:
        return 1.0
    return diameter_mm / lesion.card.diameter_mm


def _thickness_mm(image: MedicalImage, slices: int) -> float | None:
    """Slice thickness as far as a lesion over so many slices has room to be blurred by it."""
    thickness = image.slice_thickness_mm
    if thickness is None or slices + 2 * math.ceil(thickness / image.slice_spacing_mm) > image.slices:
        return None
    return thickness


def _diameter_mm(request: LesionRequest, ground: Ground, rng: np.random.Generator) -> float:
    low, high = request.size_mm
    if request.sizes == "even":
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    if ground.domain == "mr":
        raise SettingsError("the sizes of real lesions in MR are not on record", remedy="Leave the sizes even.")
    if ground.domain == "kub" or request.type == "stone":
        raise SettingsError("the sizes of real stones are not on record", remedy="Leave the sizes even.")
    return shipped_sizes().diameter_mm(float(rng.uniform()), request.size_mm)


def generator_of(request: LesionRequest) -> Generator:
    """The generator that a request names, with its model."""
    return generator_for(request.generator, model=request.model, sha256=request.model_sha256)


def _wish(request: LesionRequest, ground: Ground, diameter_mm: float) -> Wish:
    ground.check_type(request.type)
    return Wish(
        type=request.type,
        diameter_mm=diameter_mm,
        stone=ground.domain == "kub",
        film=ground.is_projection,
        entry=request.bank_entry,
        rotation_degrees=request.rotation_degrees,
    )


def split_place(place: Point, *, one_slice: bool) -> tuple[Index, Point]:
    """The voxel that a place lies in, and its offset from that voxel's centre in whole 1/64 voxels."""
    asked = np.round(np.asarray(place) * FRACTION_STEPS) / FRACTION_STEPS
    whole = np.floor(asked + 0.5)
    offset = asked - whole
    if one_slice:
        offset[0] = 0.0
    anchor = (int(whole[0]), int(whole[1]), int(whole[2]))
    return anchor, (float(offset[0]), float(offset[1]), float(offset[2]))


def _anchor(
    request: LesionRequest, ground: Ground, jitter: NDArray[np.float64], diameter_mm: float
) -> tuple[Index | None, Point]:
    """Voxel asked for (None: free) and the centre's offset from it, in 1/64 voxel."""
    image = ground.image
    if request.place is not None:
        return split_place(request.place, one_slice=image.slices == 1)
    offset = jitter.copy()
    # a lesion thinner than two slices would lose its mask between them: its centre goes into a slice
    if diameter_mm < 2 * image.slice_spacing_mm or image.slices == 1:
        offset[0] = 0.0
    return None, (float(offset[0]), float(offset[1]), float(offset[2]))


def _cut(
    corner: Index, alpha: NDArray[np.uint16], density: NDArray[np.float32]
) -> tuple[Index, NDArray[np.uint16], NDArray[np.float32]]:
    """The patch's slice at the anchor, for an image that has no other."""
    return (0, corner[1], corner[2]), alpha[-corner[0]][np.newaxis], density[-corner[0]][np.newaxis]


def _with_edge_band(
    corner: Index, alpha: NDArray[np.uint16], density: NDArray[np.float32]
) -> tuple[Index, NDArray[np.uint16], NDArray[np.float32]]:
    """The paper's footprint: the mask and the pixels of its Sobel contour, nothing else."""
    room = ((0, 0), (2, 2), (2, 2))  # the contour must not meet the patch's border
    alpha, density = np.pad(alpha, room), np.pad(density, room, mode="edge")
    inside = alpha >= HALF
    alpha = np.where(inside, alpha, edge_band(inside).astype(np.uint16))
    return (corner[0], corner[1] - 2, corner[2] - 2), alpha, density


def _cropped(
    corner: Index, alpha: NDArray[np.uint16], density: NDArray[np.float32]
) -> tuple[Index, NDArray[np.uint16], NDArray[np.float32]]:
    """The patch without its empty shell, which would keep a lesion off the image's border."""
    if not alpha.any():
        return corner, alpha, density
    box = bounding_box(alpha)
    low: Index = (corner[0] + box[0].start, corner[1] + box[1].start, corner[2] + box[2].start)
    return low, np.ascontiguousarray(alpha[box]), np.ascontiguousarray(density[box])
