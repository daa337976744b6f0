"""Ground: what a background offers a lesion: where it may go, where it is likely, how noisy it is.

Computed once for an image and a choice of margins, used for every lesion drawn into it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import GeometryError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.candidates import PlaceSampler
from HiResMedSynthLib.placement.danger import DangerMap, danger
from HiResMedSynthLib.placement.domain import PROJECTION_DOMAINS, Domain, guess_domain
from HiResMedSynthLib.placement.location import heatmap
from HiResMedSynthLib.placement.margins import Margins

# Grey range of a film (5th to 95th percentile) over the water-equivalent range it shows: lung to mediastinum in a
# PA chest film, flank to spine in a KUB film. A coarse model of the unknown grey curve; case.json calls it so.
FILM_RANGE_MM_WATER = 75.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """A background prepared for drawing.

    Args:
        image: the background.
        domain: what it shows.
        margins: distances kept, part of the danger map.
        danger_map: forbidden classes per voxel.
    """

    image: MedicalImage
    domain: Domain
    margins: Margins
    danger_map: DangerMap

    def forbidden(self, allow: Collection[str] = ()) -> NDArray[np.bool_]:
        """`[slice, row, column]`, True = forbidden; classes named in `allow` count as permitted. Cached."""
        return self._forbidden_by_allowance(tuple(sorted(allow)))

    def sampler(self, allow: Collection[str] = ()) -> PlaceSampler:
        """Draws places from the location prior restricted to permitted tissue. Cached."""
        return self._sampler_by_allowance(tuple(sorted(allow)))

    def _forbidden_by_allowance(self, allow: tuple[str, ...]) -> NDArray[np.bool_]:
        if allow not in self._forbidden_cache:
            self._forbidden_cache[allow] = self.danger_map.forbidden(allow)
        return self._forbidden_cache[allow]

    def _sampler_by_allowance(self, allow: tuple[str, ...]) -> PlaceSampler:
        if allow not in self._sampler_cache:
            heat = heatmap(self.image, self.danger_map, domain=self.domain, allow=allow)
            self._sampler_cache[allow] = PlaceSampler(heat)
        return self._sampler_cache[allow]

    @cached_property
    def _forbidden_cache(self) -> dict[tuple[str, ...], NDArray[np.bool_]]:
        return {}

    @cached_property
    def _sampler_cache(self) -> dict[tuple[str, ...], PlaceSampler]:
        return {}

    @cached_property
    def shapes(self) -> dict[Hashable, Any]:
        """Forms that `draw_case` has drawn here, kept for the next case."""
        return {}

    @property
    def is_projection(self) -> bool:
        """True for radiographs, where line integrals add."""
        return self.domain in PROJECTION_DOMAINS

    @cached_property
    def room_mm(self) -> float:
        """Diameter in millimetres of the largest disc that fits into the permitted tissue of a slice."""
        import cv2

        radius = 0.0
        for plane in self.forbidden():
            radius = max(radius, float(cv2.distanceTransform((~plane).astype(np.uint8), cv2.DIST_L2, 5).max()))
        return 2 * radius * max(self.image.spacing_mm[1:])

    @cached_property
    def grey_per_mm_water(self) -> float:
        """Stored-value difference that one millimetre of water makes on this film; negative for MONOCHROME1."""
        pixels = self.image.pixels[0]
        margin_rows, margin_columns = pixels.shape[0] // 10, pixels.shape[1] // 10
        middle = pixels[margin_rows : -margin_rows or None, margin_columns : -margin_columns or None]
        low, high = np.percentile(middle, [5, 95])
        sign = 1.0 if self.image.bright_is_dense else -1.0
        return sign * max(float(high - low), 1.0) / FILM_RANGE_MM_WATER


def prepare_ground(image: MedicalImage, *, domain: Domain | None = None, margins: Margins | None = None) -> Ground:
    """The background with its danger map.

    Raises:
        GeometryError: the spacing is unknown, or the stack is no regular volume.
        SettingsError: the domain doesn't fit the image.
        PlacementError: the anatomy that the domain needs is not found.
    """
    domain = domain or guess_domain(image)
    _ = image.spacing_mm  # refuses an unknown spacing before any work
    if domain in PROJECTION_DOMAINS and image.slices > 1:
        raise SettingsError(
            f"a radiograph has one picture, this image has {image.slices} slices",
            remedy="Choose one with --slice NUMBER, or name another --domain.",
        )
    if domain in PROJECTION_DOMAINS and image.units == "HU":
        raise SettingsError(
            f"this is a CT, not a film ({domain})", remedy="Use --domain lung-ct, or project it to a film first."
        )
    if domain == "lung-ct" and image.units != "HU":
        raise SettingsError(
            f"lung-ct needs Hounsfield units, this image ({image.modality}) has none",
            remedy="Give a CT, or say --domain cxr for a chest radiograph.",
        )
    if image.volume_problem is not None:
        raise GeometryError(
            f"a three-dimensional lesion can't be placed here: {image.volume_problem}",
            remedy="Choose one slice with --slice NUMBER; it is then worked on by itself.",
        )
    margins = margins or Margins()
    return Ground(image=image, domain=domain, margins=margins, danger_map=danger(image, domain=domain, margins=margins))
