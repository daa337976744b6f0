"""Structures of a chest or abdominal film by a network, and the danger map that follows from them.

The network sees the film with its short side at 192 px, in two readings (`film_channels`): grey between percentiles,
and grey with the local mean and contrast taken out. Its answer is enlarged to the film.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger_map import (
    BESIDE_HEART,
    MEDIASTINUM,
    OUTSIDE_LUNGS,
    PELVIS,
    PLEURA_MARGIN,
    SPINE,
    DangerMap,
)
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.near import within_mm
from HiResMedSynthLib.placement.network import PlacementNetwork
from HiResMedSynthLib.weights import ModelError

TASK = "danger-film"
STRUCTURES = (
    "lungs",
    "mediastinum and heart",
    "ribs and clavicles",
    "spine",
    "trachea and main bronchi",
    "pelvis and hips",
    "body",
)
CHANNELS = 2
SHORT_PX = 192
LONGEST = 3.0  # long side over short side
LOCAL_PX = 16.0  # sigma of the local mean and contrast
SMALLEST_LUNGS, SMALLEST_LUNG = 0.08, 0.01  # share of the film: both lungs; one of them
LARGEST_PIECES = 0.6  # share of all that is called lung that lies in its two largest pieces
LEAST_SHARED = 0.65  # Dice of the lungs with the mean shape that the rule lays over the film
# on the safe side (docs/results/danger_film.md): from which probability lung is permitted and heart forbidden, and how
# far, as a share of the lungs' width, a lesion keeps off the heart
LUNGS_ABOVE, HEART_ABOVE, HEART_DISTANCE = 0.7, 0.2, 0.02
MEDIASTINUM_SHARE = 0.2  # of the lungs' width, on each side of the middle; beyond it lies abdomen
BORDER_SHARE = 1 / 12  # of each side: not counted in the percentiles


def film_channels(film: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[2, row, column]` of a film at working size, dense = high: grey -1..1 by percentiles, and locally normalised."""
    rows, columns = (max(1, round(side * BORDER_SHARE)) for side in film.shape)
    low, high = np.percentile(film[rows:-rows, columns:-columns], [1, 99])
    unit = np.clip((film - np.float32(low)) / np.float32(max(high - low, 1e-6)), -0.1, 1.1).astype(np.float32)
    deviation = unit - wide_blur(unit, LOCAL_PX)
    contrast = np.sqrt(np.maximum(wide_blur(deviation**2, LOCAL_PX), 0)) + np.float32(0.03)
    return np.stack([2 * unit - 1, np.clip(deviation / contrast, -3, 3) / 2]).astype(np.float32)


def wide_blur(picture: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """A Gaussian of 8 px or more, on a quarter of the size: as good, and much faster."""
    import cv2

    rows, columns = picture.shape
    small = cv2.resize(picture, (max(1, columns // 4), max(1, rows // 4)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma_px / 4), (columns, rows)), dtype=np.float32)


def at_work_size(film: NDArray[np.float32], spacing_mm: tuple[float, float]) -> NDArray[np.float32]:
    """The film with square pixels, its short side at 192.

    Raises:
        PlacementError: it is a strip.
    """
    import cv2

    height, width = film.shape[0] * spacing_mm[0], film.shape[1] * spacing_mm[1]
    if max(height, width) > LONGEST * min(height, width):
        raise PlacementError(
            f"no anatomy was recognised on this film: it is more than {LONGEST:.0f} times as long as wide",
            remedy="Give the whole film; check the pixel spacing.",
        )
    scale = SHORT_PX / min(height, width)
    size = (max(SHORT_PX, round(width * scale)), max(SHORT_PX, round(height * scale)))
    shrinks = size[0] < film.shape[1] and size[1] < film.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(film.astype(np.float32), size, interpolation=how), dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmRegions:
    """What the network says of a film.

    Args:
        logits: float32 `[structure, row, column]` at working size, in the order of `STRUCTURES`.
        shape: (rows, columns) of the film.
        own_model: name of the network, where it is a model of the user's own; else empty.
    """

    logits: NDArray[np.float32]
    shape: tuple[int, int]
    own_model: str = ""

    def seen(self, structure: str, *, above: float = 0.5) -> NDArray[np.bool_]:
        """bool `[row, column]` of the film: where the structure is more probable than `above`."""
        import cv2

        logits = self.logits[STRUCTURES.index(structure)]
        wide = cv2.resize(logits, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.asarray(wide > _logit(above))

    def heart(self) -> NDArray[np.bool_]:
        """bool `[row, column]` of the film: heart and mediastinum."""
        return self._heart

    @cached_property
    def _heart(self) -> NDArray[np.bool_]:
        return self.seen("mediastinum and heart", above=HEART_ABOVE)

    def near_heart(self, lungs: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> NDArray[np.bool_]:
        """bool `[row, column]` of the film: what of the lungs lies in heart or mediastinum or beside them."""
        columns = np.flatnonzero(lungs.any(axis=0))
        reach_mm = HEART_DISTANCE * float(columns[-1] - columns[0] + 1) * spacing_mm[1]
        return _near_in_lungs(self.heart(), reach_mm, lungs, spacing_mm)

    def lungs(self, *, above: float = LUNGS_ABOVE) -> NDArray[np.bool_]:
        """bool `[row, column]` of the film: the two lungs, without holes, where they are more probable than `above`.

        Raises:
            PlacementError: too little of them, or in too many pieces: no frontal chest film.
        """
        import cv2

        found = (self.logits[0] > 0).astype(np.uint8)
        count, parts, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=4)
        areas = stats[1:, cv2.CC_STAT_AREA] / found.size
        largest = 1 + np.argsort(-areas)[:2]
        kept = float(areas[largest - 1].sum()) if count > 1 else 0.0
        if kept < SMALLEST_LUNGS or kept < LARGEST_PIECES * float(areas.sum()):
            raise _no_chest(f"lung on {kept:.0%} of it, in {count - 1} pieces", self.own_model)
        piece = [part for part in largest if areas[part - 1] > SMALLEST_LUNG]
        sure = self.logits[0] - np.float32(_logit(above))
        kept_sure = (np.isin(parts, piece) & (sure > 0)).astype(np.uint8)
        outlines, _ = cv2.findContours(kept_sure, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = np.zeros_like(found)
        cv2.drawContours(filled, outlines, -1, 1, thickness=cv2.FILLED)
        if filled.mean() < SMALLEST_LUNG:
            raise _no_chest(f"lung on {kept:.0%} of it, hardly any of it sure", self.own_model)
        inside = np.where(filled > 0, np.maximum(sure, 1e-3), np.minimum(sure, -1e-3))
        wide = cv2.resize(inside, (self.shape[1], self.shape[0]), interpolation=cv2.INTER_LINEAR)
        return np.asarray(wide > 0)


def find_film_regions(image: MedicalImage, network: PlacementNetwork) -> FilmRegions:
    """The structures of a film; its mirror image is asked too and the mean of both answers taken.

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: the film is a strip, or a CT.
        ModelError: the network is of another task.
    """
    if network.plan.task != TASK or network.plan.classes != STRUCTURES:
        raise ModelError(
            f"the network '{network.name}' is of the task {network.plan.task}, not {TASK}",
            remedy="Give one trained by python -m Training.train_danger --domain film.",
        )
    if image.units == "HU":
        raise PlacementError("a CT is no film", remedy="Say --domain lung-ct.")
    _, row_mm, column_mm = image.spacing_mm
    film = image.pixels[0].astype(np.float32)
    channels = film_channels(at_work_size(film if image.bright_is_dense else -film, (row_mm, column_mm)))
    right, left = network.logits(channels[np.newaxis])[0], network.logits(channels[np.newaxis, :, :, ::-1].copy())[0]
    mean = (right + left[:, :, ::-1]) / 2
    return FilmRegions(logits=mean, shape=(image.rows, image.columns), own_model=network.name if network.own else "")


def chest_lungs(image: MedicalImage, regions: FilmRegions) -> NDArray[np.bool_]:
    """The network's lungs, bool `[row, column]`, if the film is like a chest film to the rule as well.

    A network finds lungs in noise and in lateral views too; the rule's template is the better judge of that.

    Raises:
        PlacementError: no frontal chest film.
    """
    from HiResMedSynthLib.placement.lungs_cxr import fit_chest

    _, row_mm, column_mm = image.spacing_mm
    film = image.pixels[0].astype(np.float32)
    fit = fit_chest(film if image.bright_is_dense else -film, pixel_spacing_mm=(row_mm, column_mm))
    likely, shape = regions.lungs(above=0.5), fit.lungs > 0.5
    shared = 2 * float((likely & shape).sum()) / float(likely.sum() + shape.sum())
    if shared < LEAST_SHARED:
        raise _no_chest(f"network and mean lung shape share {shared:.0%}", regions.own_model)
    return regions.lungs()


def _logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def _no_chest(why: str, own_model: str) -> PlacementError:
    if own_model:  # the rule was asked before, and took the film for a chest
        return PlacementError(
            f"the model '{own_model}' recognised no lungs on this film ({why})",
            remedy="Check the model on another picture, or say --danger rule.",
        )
    return PlacementError(
        f"no lungs were recognised on this film ({why})",
        remedy="Is it a frontal chest film, upright, with MONOCHROME1 or 2 told rightly? Say what it shows with "
        "--domain.",
    )


def danger_network_film(
    image: MedicalImage, *, domain: Literal["cxr", "kub"], margins: Margins, network: PlacementNetwork
) -> DangerMap:  # fmt: skip
    """The danger map of a frontal film by a network.

    On a chest film the lungs are the network's, heart and mediastinum are taken off them, with a margin of their own,
    and also fill what lies between them, as `rule_cxr` does. On an abdominal film what the network calls spine or
    pelvis is added to `rule_kub`'s map: it has seen one abdomen.

    Args:
        image: one film of known spacing.
        domain: what it shows.
        margins: distances added to the forbidden structures.
        network: of the task "danger-film".

    Raises:
        GeometryError: the spacing is unknown.
        PlacementError: the anatomy that the domain needs is not found.
    """
    regions = find_film_regions(image, network)
    if domain == "kub":
        return _kub(image, margins, regions, network)
    lungs = chest_lungs(image, regions)
    heart, near_heart = regions.heart(), regions.near_heart(lungs, image.spacing_mm[1:])
    columns = np.flatnonzero(lungs.any(axis=0))
    middle, width = (columns[0] + columns[-1]) / 2, columns[-1] - columns[0]
    aside = np.abs(np.arange(image.columns) - middle) < MEDIASTINUM_SHARE * width
    free = lungs & ~heart
    names = {1: OUTSIDE_LUNGS, 2: MEDIASTINUM, 3: PLEURA_MARGIN, 4: BESIDE_HEART}
    margin = _near_in_lungs(~lungs, margins.pleura_mm, lungs, image.spacing_mm[1:])
    labels = np.ones(lungs.shape, dtype=np.uint8)
    for label, mask in (
        (2, (_between(lungs) & aside & ~lungs) | heart), (0, free), (3, margin & free), (4, near_heart & free),
    ):  # fmt: skip
        np.copyto(labels, label, where=mask)
    return DangerMap(
        labels=labels[np.newaxis], names=names, method=f"network {network.name}: lungs and heart of a chest film"
    )


def _near_in_lungs(
    mask: NDArray[np.bool_], distance_mm: float, lungs: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> NDArray[np.bool_]:
    """What of the lungs lies within a distance of the mask; only their box is looked at."""
    box = bounding_box(lungs, [int(distance_mm / mm) + 1 for mm in spacing_mm])
    near = np.zeros_like(lungs)
    near[box] = within_mm(mask[box][np.newaxis], distance_mm, spacing_mm=(1.0, *spacing_mm))[0]
    return near & lungs


def _between(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From the first to the last pixel of lung in each row."""
    column, width = np.arange(lungs.shape[1]), lungs.shape[1]
    first, last = lungs.argmax(axis=1), width - 1 - lungs[:, ::-1].argmax(axis=1)
    spanned = (column >= first[:, np.newaxis]) & (column <= last[:, np.newaxis])
    return np.asarray(spanned & np.asarray(lungs.any(axis=1))[:, np.newaxis])


def _kub(image: MedicalImage, margins: Margins, regions: FilmRegions, network: PlacementNetwork) -> DangerMap:
    from HiResMedSynthLib.placement.rule_kub import danger_kub

    rule = danger_kub(image, margins=margins)
    labels = rule.labels.copy()
    number = {name: label for label, name in rule.names.items()}
    free = labels[0] == 0
    labels[0][free & regions.seen("spine")] = number[SPINE]
    labels[0][free & regions.seen("pelvis and hips")] = number[PELVIS]
    return DangerMap(
        labels=labels, names=rule.names, method=f"network {network.name}: spine and pelvis, added to the {rule.method}"
    )
