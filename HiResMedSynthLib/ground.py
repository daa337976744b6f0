"""Ground: what a background offers a lesion: where it may go, where it is likely, how sharp and noisy it is.

Computed once for an image and a choice of margins, used for every lesion drawn into it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import Domain, RequestType, Zone
from HiResMedSynthLib.errors import GeometryError, PlacementError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.film_anatomy import FilmAnatomy, film_anatomy
from HiResMedSynthLib.joining.film_contrasts import shipped_contrasts
from HiResMedSynthLib.joining.film_scale import FilmScale, abdomen_scale, chest_scale, projected_scale, warnings
from HiResMedSynthLib.joining.film_sharpness import FilmSharpness, film_sharpness
from HiResMedSynthLib.joining.mr_scan import mr_resolution, quiet_tissue
from HiResMedSynthLib.joining.noise_texture import NoiseTexture, noise_texture
from HiResMedSynthLib.joining.scan_limits import ScanLimits, scan_limits
from HiResMedSynthLib.joining.scan_resolution import ScanResolution, scan_resolution
from HiResMedSynthLib.placement.axes import both_lungs, is_axial
from HiResMedSynthLib.placement.candidates import PlaceSampler
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_map import LUNG_CLASSES, MEDIASTINUM, MUST_TOUCH, SPINE, DangerMap
from HiResMedSynthLib.placement.domain import PROJECTION_DOMAINS, guess_domain
from HiResMedSynthLib.placement.film_view import abdomen_warnings, view_warnings
from HiResMedSynthLib.placement.location import heatmap
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.method import LocalFactor, PlacementMethod
from HiResMedSynthLib.placement.sizes import shipped_sizes
from HiResMedSynthLib.placement.zones import zone_mask

Progress = Callable[[int, int, str], None]
NOT_AXIAL = "by its header this CT is not stored as axial slices, its anatomy was looked for as if it were"

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
        placement: how places are found.
        device: where their networks run: "cpu", or a GPU of torch's.
    """

    image: MedicalImage
    domain: Domain
    margins: Margins
    danger_map: DangerMap
    placement: PlacementMethod = field(default_factory=PlacementMethod)
    device: str = "cpu"

    def forbidden(self, allow: Collection[str] = ()) -> NDArray[np.bool_]:
        """`[slice, row, column]`, True = forbidden; classes named in `allow` count as permitted. Cached."""
        return self._forbidden_by_allowance(tuple(sorted(allow)))

    def forbidden_in(self, region: tuple[slice, ...], allow: Collection[str] = ()) -> NDArray[np.bool_]:
        """The same of a region, slices along (slice, row, column); only its slices are looked at."""
        return self.danger_map.forbidden(allow, within=region)

    def look_everywhere(self, progress: Progress | None = None) -> None:
        """Looks at the slices that were not needed so far; `progress`: called with (slices done, slices, what)."""
        self.danger_map.look_everywhere(None if progress is None else partial(_tell, progress))

    def sampler(self, allow: Collection[str] = (), zone: Zone | None = None) -> PlaceSampler:
        """Draws places from the location prior restricted to permitted tissue and a zone. Cached.

        Raises:
            PlacementError: nothing there is permitted.
        """
        key = (tuple(sorted(allow)), zone)
        if key not in self._sampler_cache:
            self._sampler_cache[key] = PlaceSampler(self.heat(allow, zone))
        return self._sampler_cache[key]

    def heat(self, allow: Collection[str] = (), zone: Zone | None = None) -> NDArray[np.float32]:
        """Probability of a lesion's centre per voxel, `[slice, row, column]`, sums to 1; 0 where forbidden.

        Raises:
            PlacementError: nothing in that zone is permitted.
        """
        heat = heatmap(
            self.image, self.danger_map, domain=self.domain, allow=allow, local=self._local,
            film_density=self._film_density, temperature=self.placement.temperature,
        )  # fmt: skip
        return heat if zone is None else self.in_zone(heat, zone)

    def in_zone(self, heat: NDArray[np.float32], zone: Zone) -> NDArray[np.float32]:
        """The heatmap restricted to a zone, sums to 1.

        Raises:
            PlacementError: nothing in that zone is permitted, or it can't be told here.
        """
        inside = heat * zone_mask(self.image, self.danger_map, zone, domain=self.domain)
        total = float(inside.sum(dtype=np.float64))
        if total == 0:
            raise PlacementError(
                f"nothing in the zone '{zone}' is permitted for a lesion", remedy="Ask for another zone, or none."
            )
        return np.asarray(inside / np.float32(total))

    def lies_in(self, place: tuple[int, int, int], zone: Zone) -> bool:
        """Whether a place (slice, row, column) is in a zone; False where zones can't be told here."""
        if zone not in self._zones:
            try:
                self._zones[zone] = zone_mask(self.image, self.danger_map, zone, domain=self.domain)
            except PlacementError:
                self._zones[zone] = None
        mask = self._zones[zone]
        return mask is not None and bool(mask[place])

    @property
    def method(self) -> str:
        """How the danger map and the prior were found, for case.json."""
        seen = "" if self.domain != "lung-ct" or is_axial(self.image) else f"; {NOT_AXIAL}"
        return f"{self.danger_map.method}; prior: {self.prior_method}{seen}"

    @property
    def prior_method(self) -> str:
        """How the prior was found."""
        factor = self._local_factor
        if self.domain == "mr":
            return "the same everywhere in the body"
        words = "density of real lesions" if factor is None else f"density of real lesions x {factor.name}"
        if self._film_density is not None:
            words = f"density of the lesions of model {self.placement.prior}"
        return words

    def _forbidden_by_allowance(self, allow: tuple[str, ...]) -> NDArray[np.bool_]:
        if allow not in self._forbidden_cache:
            self._forbidden_cache[allow] = self.danger_map.forbidden(allow)
        return self._forbidden_cache[allow]

    @cached_property
    def _forbidden_cache(self) -> dict[tuple[str, ...], NDArray[np.bool_]]:
        return {}

    @cached_property
    def _sampler_cache(self) -> dict[tuple[tuple[str, ...], Zone | None], PlaceSampler]:
        return {}

    @cached_property
    def _zones(self) -> dict[Zone, NDArray[np.bool_] | None]:
        return {}

    def size_likelihood(self, diameter_mm: float, place: tuple[int, int, int]) -> float:
        """How often a lung nodule there is of that size, over the third of the lungs where it is most: 0..1."""
        if self._lung_columns is None:
            return 1.0
        history = shipped_sizes()
        first, last = self._lung_columns
        aside = abs(place[2] - (first + last) / 2) / max((last - first) / 2, 1)
        return float(history.likelihood(diameter_mm)[history.third(aside)])

    @cached_property
    def _lung_columns(self) -> tuple[int, int] | None:
        """First and last column of the lungs; None where one lung alone is seen, so that the midplane is unknown."""
        lungs = self.danger_map.region(LUNG_CLASSES)
        if not both_lungs(lungs):
            return None
        seen = np.flatnonzero(lungs.any(axis=(0, 1)))
        return int(seen[0]), int(seen[-1])

    @cached_property
    def _film_density(self) -> NDArray[np.float32] | None:
        return self.placement.film_density(self.domain)

    @cached_property
    def _local_factor(self) -> LocalFactor | None:
        return self.placement.local_factor(self.domain, device=self.device)

    @cached_property
    def _local(self) -> NDArray[np.float32] | None:
        """What the prior makes of each voxel of the lungs by its neighbourhood; None: nothing."""
        factor = self._local_factor
        return None if factor is None else factor.heat(self.image, self.danger_map.region(LUNG_CLASSES))

    @cached_property
    def shapes(self) -> dict[Hashable, Any]:
        """Forms that `draw_case` has drawn here, kept for the next case."""
        return {}

    @cached_property
    def resolution(self) -> ScanResolution:
        """How sharp this CT or MR is, by its own edges."""
        measured = mr_resolution if self.domain == "mr" else scan_resolution
        return measured(self.image.pixels, spacing_mm=self.image.spacing_mm)

    @cached_property
    def noise_texture(self) -> NoiseTexture:
        """The grain of this CT's or MR's noise."""
        if self.domain == "mr":
            return noise_texture(self.image.pixels, partial(quiet_tissue, darkest=self.signal_range[0]))
        return noise_texture(self.image.pixels)

    @cached_property
    def signal_range(self) -> tuple[float, float]:
        """5th and 95th percentile of the permitted tissue's values; PlacementError where nothing is permitted."""
        low, high = (float(value) for value in np.percentile(self.image.pixels[self.heat() > 0], [5, 95]))
        return low, high

    @cached_property
    def signal_limits(self) -> tuple[float, float]:
        """Lowest and highest value that a lesion in this MR may have: a magnitude is never below zero."""
        low, high = self.image.value_limits
        return (max(low, 0.0), high) if self.image.pixels.min() >= 0 else (low, high)

    @cached_property
    def film(self) -> NDArray[np.float32]:
        """The film `[row, column]`, dense = high."""
        sign = np.float32(1.0 if self.image.bright_is_dense else -1.0)
        return np.asarray(sign * self.image.pixels[0].astype(np.float32))

    @cached_property
    def film_sharpness(self) -> FilmSharpness:
        """How sharp this film is, by its own edges."""
        return film_sharpness(self.film, spacing_mm=self.image.spacing_mm[1:])

    @cached_property
    def film_anatomy(self) -> FilmAnatomy:
        """Ribs and vessels of this chest film."""
        lungs = self.danger_map.region(LUNG_CLASSES)[0]
        return film_anatomy(self.film, lungs, spacing_mm=self.image.spacing_mm[1:])

    @cached_property
    def film_scale(self) -> FilmScale:
        """How much a millimetre of water changes the grey of this film."""
        scale = projected_scale(self.image)
        free, reference = ~self.forbidden()[0], shipped_contrasts().reference
        if scale is None and self.domain == "kub":
            spine = self.danger_map.region((SPINE,))[0] & ~free
            scale = abdomen_scale(self.film, spine, free, reference, column_mm=self.image.spacing_mm[2])
        elif scale is None:
            lungs = self.danger_map.region(LUNG_CLASSES)[0]
            dense = self.danger_map.region((MEDIASTINUM,))[0] & ~free
            scale = chest_scale(self.film, lungs, dense, self.film_anatomy, reference)
        return scale or FilmScale(grey_per_mm=abs(self.grey_per_mm_water), source="the film's whole grey range")

    @cached_property
    def scan_limits(self) -> ScanLimits:
        """Where the values of this CT were cut off."""
        return scan_limits(self.image.pixels)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What makes this image a poor ground for lesions."""
        if not self.is_projection:
            return self.view_warnings + (self.scan_limits.warnings if self.image.units == "HU" else ())
        return self.view_warnings + warnings(self.image, ~self.forbidden()[0])

    @cached_property
    def view_warnings(self) -> tuple[str, ...]:
        """What of the view makes danger map and prior doubtful."""
        if self.domain == "lung-ct" and not is_axial(self.image):
            return (NOT_AXIAL,)
        if self.domain == "kub":
            return abdomen_warnings(self.image)
        return view_warnings(self.image) if self.domain == "cxr" else ()

    def check_type(self, lesion_type: RequestType) -> None:
        """Refuses a type of lesion that this kind of picture can't hold.

        Raises:
            SettingsError.
        """
        if lesion_type != "any" and (lesion_type == "stone") != (self.domain == "kub"):
            raise SettingsError(
                f"a lesion of type '{lesion_type}' doesn't belong into a picture of domain {self.domain}",
                remedy="Put stones into --domain kub, nodules into lung-ct, cxr and mr.",
            )
        needed = MUST_TOUCH.get(lesion_type)
        if needed is not None and needed not in self.danger_map.names.values():
            raise SettingsError(
                f"no {needed} is known in this picture, so no lesion can be put there",
                remedy=f"Ask for another type than '{lesion_type}'.",
            )

    @property
    def is_projection(self) -> bool:
        """True for radiographs, where line integrals add."""
        return self.domain in PROJECTION_DOMAINS

    @cached_property
    def room_mm(self) -> float:
        """Diameter in millimetres of the largest disc that fits into the permitted tissue of a slice."""
        return max(self.room_in_slice_mm(index) for index in range(self.image.slices))

    def room_in_slice_mm(self, index: int) -> float:
        """The same of one slice, which alone is looked at. Cached."""
        import cv2

        if index not in self._rooms_mm:
            plane = ~self.forbidden_in((slice(index, index + 1), slice(None), slice(None)))[0]
            radius = float(cv2.distanceTransform(plane.astype(np.uint8), cv2.DIST_L2, 5).max())
            self._rooms_mm[index] = 2 * radius * max(self.image.spacing_mm[1:])
        return self._rooms_mm[index]

    @cached_property
    def _rooms_mm(self) -> dict[int, float]:
        return {}

    @cached_property
    def grey_per_mm_water(self) -> float:
        """Stored-value difference that one millimetre of water makes on this film; negative for MONOCHROME1."""
        pixels = self.image.pixels[0]
        margin_rows, margin_columns = pixels.shape[0] // 10, pixels.shape[1] // 10
        middle = pixels[margin_rows : -margin_rows or None, margin_columns : -margin_columns or None]
        low, high = np.percentile(middle, [5, 95])
        sign = 1.0 if self.image.bright_is_dense else -1.0
        return sign * max(float(high - low), 1.0) / FILM_RANGE_MM_WATER


def prepare_ground(
    image: MedicalImage,
    *,
    domain: Domain | None = None,
    margins: Margins | None = None,
    placement: PlacementMethod | None = None,
    progress: Progress | None = None,
    by_slice: bool = False,
    device: str = "cpu",
) -> Ground:
    """The background with its danger map.

    Args:
        image: the background.
        domain: what it shows; None: guessed by its modality.
        margins: distances kept.
        placement: how places are found; None: the best shipped way.
        progress: called with (slices done, slices, what).
        by_slice: a CT's slices are looked at when a lesion needs them (`Ground.look_everywhere`: all), not now.
        device: where networks run: "cpu", or a GPU of torch's.

    Raises:
        GeometryError: the spacing is unknown, or the stack is no regular volume.
        SettingsError: the domain doesn't fit the image, or the model the domain.
        ModelError: a model is missing or damaged.
        PlacementError: the anatomy that the domain needs is not found.
    """
    domain = domain or guess_domain(image)
    _ = image.spacing_mm  # refuses an unknown spacing before any work
    if domain in PROJECTION_DOMAINS and image.units == "HU":
        raise SettingsError(
            f"this is a CT, not a film ({domain})", remedy="Use --domain lung-ct for a chest CT; films are radiographs."
        )
    if domain in PROJECTION_DOMAINS and image.slices > 1:
        raise SettingsError(
            f"a radiograph has one picture, this image has {image.slices} slices",
            remedy="Choose one with --slice NUMBER, or name another --domain.",
        )
    if domain == "lung-ct" and image.units != "HU":
        raise SettingsError(
            f"lung-ct needs Hounsfield units, this image ({image.modality}) has none",
            remedy="Give a CT, or say --domain cxr for a chest radiograph, --domain mr for an MR.",
        )
    if domain == "mr" and (image.units == "HU" or image.modality in ("CR", "DX", "RG", "MG", "XA", "RF")):
        raise SettingsError(f"this is no MR ({image.modality})", remedy="Leave --domain out.")
    if image.volume_problem is not None:
        raise GeometryError(
            f"a three-dimensional lesion can't be placed here: {image.volume_problem}",
            remedy="Choose one slice with --slice NUMBER; it is then worked on by itself.",
        )
    margins, placement = margins or Margins(), placement or PlacementMethod()
    placement.prior_task(domain)  # refuses a prior that can't be before the map is made
    network = placement.danger_network(domain, device=device)
    told = None if progress is None else partial(_tell, progress)
    found = danger(image, domain=domain, margins=margins, network=network, progress=told, by_slice=by_slice)
    return Ground(image=image, domain=domain, margins=margins, danger_map=found, placement=placement, device=device)


def _tell(progress: Progress, done: int, total: int) -> None:
    progress(done, total, "looking where lesions may go")
