"""A lesion in an MR: its form is a CT's; its signal is what was asked for, CT tells nothing of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import fusion, measure
from HiResMedSynthLib.case import HALF, CaseSettings, PlacedLesion
from HiResMedSynthLib.choices import FusionName
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.joining.fit import SMOOTH_PX, with_noise

Index = tuple[int, int, int]
NARROWEST = 20.0  # of a body's values: lesions are stored in whole steps, which would be coarser than the picture
TEXTURE = 0.12  # SD of a lesion's texture over its contrast: chosen so that it doesn't look flat, measured on no lesion
MOST_TEXTURE = 2.0  # of those SD: calcium in a CT must not shine in an MR
REACHED = 0.05  # of a contrast: less is lacking where noise is cut off at the end of the image's values
WHOLE_STEP = 1.0  # of the values
APART = 0.5  # of a lesion's contrast: where its surroundings differ by more among themselves it lies between tissues
TYPE_NOTE = (
    "in an MR a lesion's type only chooses whose form and texture it has: what is solid, ground-glass or calcified in "
    "a CT has no known signal here"
)


def check_settings(settings: CaseSettings, ground: Ground) -> None:
    """Refuses what an MR can't have.

    Raises:
        SettingsError: a lesion whose contrast wasn't told, one at the pleura, or values in steps too coarse for one.
        PlacementError: nothing is permitted.
    """
    low, high = ground.signal_range
    if high - low < NARROWEST:
        raise SettingsError(
            f"this MR's values span only {low:g} to {high:g} in the body: too few for a lesion in whole steps",
            remedy="Multiply them (by 1000, say) and store them as whole numbers first.",
        )
    if any(request.contrast is None and request.cnr is None for request in settings.requests):
        middle = ground.image.slices // 2
        noise = measure.noise(ground.image.pixels[middle], ~ground.forbidden()[middle])  # air may be cut to zero
        raise SettingsError(
            "how bright a lesion is in an MR depends on the sequence, and the bank's lesions are CT: tell its contrast",
            remedy="Give it in this image's own units: --contrast LOW:HIGH, below zero where a lesion is darker than "
            f"its surroundings (the body holds {low:.4g} to {high:.4g} here, its noise is about {noise:.2g}), or "
            "--cnr LOW:HIGH, how many times the noise.",
        )
    if any(request.type == "juxtapleural" for request in settings.requests):
        raise SettingsError(
            "the pleura isn't known in an MR, so no lesion can be put beside it",
            remedy="Leave --type out, and give the place (--at).",
        )


def signal(
    density_hu: NDArray[np.float64],
    alpha: NDArray[np.uint16],
    corner: Index,
    ground: Ground,
    *,
    wanted: float,
    level: float,
    noise: float,
    joined_by: FusionName,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """(signal of the lesion such that, composed, it differs from `level` by `wanted` on average; what was done).

    Beyond what the image's values can be it stays at their end, so it differs by less; `notes_for_mr` tells it.
    Its texture is the CT's without its noise, as strong as `TEXTURE` says. Fusion better adds the noise of the place.

    Args:
        density_hu, alpha: the lesion's patch `[slice, row, column]`.
        corner: of the patch in the image.
        wanted: mean over the mask minus `level`, in the image's units.
        level, noise: of the surroundings.
        joined_by: fusion.
        rng: the lesion's own stream for noise.
    """
    from scipy.ndimage import gaussian_filter

    mask = alpha >= HALF
    smooth = gaussian_filter(density_hu, SMOOTH_PX, mode="nearest")
    spread = float(smooth[mask].std())
    pattern = (smooth - smooth[mask].mean()) / spread if spread > 0 else np.zeros_like(smooth)
    values = level + wanted * (1.0 + TEXTURE * np.clip(pattern, -MOST_TEXTURE, MOST_TEXTURE))
    told: dict[str, Any] = {"contrast_is": "as asked for; form and texture are those of a CT"}
    if joined_by == "better":
        values, done = with_noise(
            values, alpha, ring_noise=noise, source_noise=0.0, texture=ground.noise_texture, rng=rng
        )
        told["noise_carried"] = {"around": round(done["around"], 2), "grain": ground.noise_texture.source}
    share = alpha[mask] / fusion.ALPHA_ONE if joined_by != "paper" else np.ones(int(mask.sum()))
    beneath = ground.image.pixels[_region(corner, alpha)][mask]  # at a boundary it isn't that of the surroundings
    reached = float(np.mean(share * values[mask] + (1.0 - share) * beneath)) - level
    return np.clip(values + (wanted - reached) / float(np.mean(share)), *ground.signal_limits), told


def composed_contrast(
    intensity: NDArray[np.int16], alpha: NDArray[np.uint16], corner: Index, ground: Ground, *,
    base: int, level: float, joined_by: FusionName,
) -> float:  # fmt: skip
    """Mean over the mask minus `level` of the image as `compose` will make it."""
    region = _region(corner, alpha)
    slices = ground.image.pixels[region[0]].copy()
    inside = (slice(0, len(alpha)), region[1], region[2])
    join = fusion.replace_and_blur_edge if joined_by == "paper" else fusion.blend
    join(slices, inside, intensity, alpha, base=base, storable=ground.image.storable)
    return float(slices[inside][alpha >= HALF].mean()) - level


def notes_for_mr(lesions: Sequence[PlacedLesion]) -> tuple[str, ...]:
    """What a user should know of the lesions of a case in an MR."""
    notes = [TYPE_NOTE] if any(lesion.request.type != "any" for lesion in lesions) else []
    for lesion in lesions:
        if short := _unreached(lesion):
            notes.append(short)
        low, high = lesion.details["surroundings_from_to"]
        if high - low > max(APART * abs(lesion.contrast), 6.0 * lesion.details["noise"]):
            notes.append(
                f"lesion {lesion.number} lies where tissues meet (values of {low:.4g} to {high:.4g} around it): its "
                f"contrast is to their median, {lesion.details['surroundings']:.4g}"
            )
    return tuple(notes)


def _unreached(lesion: PlacedLesion) -> str:
    """What a lesion lacks of the contrast asked for, in words; empty where little or nothing."""
    request, noise = lesion.request, max(lesion.details["noise"], 1e-6)
    asked, unit = (request.contrast, 1.0) if request.cnr is None else (request.cnr, noise)
    if asked is None:
        return ""
    low, high = (unit * end for end in asked)
    lacking = max(low - lesion.contrast, lesion.contrast - high)
    if lacking <= max(REACHED * abs(lesion.contrast), WHOLE_STEP):
        return ""
    return (
        f"lesion {lesion.number} has a contrast of {lesion.contrast:.4g} where {low:.4g} to {high:.4g} was asked for: "
        f"the image's values or the fusion allow no more (around it they are {lesion.details['surroundings']:.4g})"
    )


def _region(corner: Index, alpha: NDArray[np.uint16]) -> tuple[slice, slice, slice]:
    first, second, third = (slice(low, low + size) for low, size in zip(corner, alpha.shape, strict=True))
    return first, second, third
