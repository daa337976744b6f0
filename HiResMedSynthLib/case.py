"""The recipe: a `Case` holds every choice of a synthetic case, `CaseSettings` what was asked for.

Settings are a list of lesion requests; `draw_case` turns them into placed lesions (arrays on the background's own
grid); `compose` applies those and decides nothing. A case therefore gives the same pixels on any machine.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import (
    DOMAINS,
    FUSIONS,
    GENERATORS,
    REQUEST_TYPES,
    SIZES,
    Domain,
    FusionName,
    GeneratorName,
    RequestType,
    SizesName,
    Zone,
)
from HiResMedSynthLib.errors import CaseError, SettingsError
from HiResMedSynthLib.fusion import ALPHA_HALF
from HiResMedSynthLib.image import MedicalImage, PixelBox
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.zones import check_zone

CASE_VERSION = 1
HALF = ALPHA_HALF  # from here on a voxel belongs to the lesion's mask
Mode = Literal["blend", "add"]
Point = tuple[float, float, float]
Range = tuple[float, float]
LIMITS = "lowest, highest"
NUMBERS = {"place": "slice, row, column", "size_mm": LIMITS, "contrast": LIMITS, "cnr": LIMITS}  # of a request


@dataclass(frozen=True, kw_only=True)
class LesionRequest:
    """One lesion that is wanted; what is None is drawn.

    Args:
        place: (slice, row, column) index of its centre, or None: drawn from the location prior.
        zone: part of the patient that its place is drawn in; None: anywhere. A place that is given goes before it.
        type: a lesion type, or "any" that fits the domain.
        size_mm: (smallest, largest) diameter of the sphere of equal volume.
        sizes: "even": every ratio of sizes is as likely; "history": within the range as often as in real patients.
        bank_entry: name of a bank entry; None: drawn among those of the type.
        contrast: (lowest, highest) mean difference to the surroundings, HU or stored values; None: the lesion's own.
        cnr: the same as a multiple of the background's noise; excludes `contrast`.
        rotation_degrees: in-plane turn; None: drawn.
        seed: own random stream of this lesion: others may come and go without changing it.
        attempt: which shape of that stream is taken; `draw_case` raises it where the first ones found no room.
        generator: where its form comes from (`lesion.generators`).
        model: name of the generator's model; None: one that fits, or none is used.
        model_sha256: hash of that model's file, filled in when it is drawn: another file under its name is refused.
        keep_shape: its shape is taken even where it looks unlike real lesions; set when a case is drawn, so that
            drawing again gives this lesion, and dragging it doesn't change its form.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic where JSON comes in)

    place: Point | None = None
    zone: Zone | None = None
    type: RequestType = "any"
    size_mm: Range = (4.0, 12.0)
    sizes: SizesName = "even"
    bank_entry: str | None = None
    contrast: Range | None = None
    cnr: Range | None = None
    rotation_degrees: float | None = None
    seed: int = 0
    attempt: int = 0
    generator: GeneratorName = "deform"
    model: str | None = None
    model_sha256: str | None = None
    keep_shape: bool = False

    def __post_init__(self) -> None:
        for name, words in NUMBERS.items():
            if (given := getattr(self, name)) is not None:
                if np.shape(given) != (count := words.count(",") + 1,):
                    raise SettingsError(f"{name} takes {count} numbers", remedy=f"Give them in order: {words}.")
                object.__setattr__(self, name, tuple(map(float, given)))  # case.json can't hold a script's arrays
        for name in ("seed", "attempt"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        if self.rotation_degrees is not None:
            object.__setattr__(self, "rotation_degrees", float(self.rotation_degrees))
        for name, limits in (("size", self.size_mm), ("contrast", self.contrast), ("CNR", self.cnr)):
            if limits is not None and limits[0] > limits[1]:
                raise SettingsError(
                    f"a {name} of {limits[0]:g}:{limits[1]:g} is reversed",
                    remedy=f"Give the smaller number first: {limits[1]:g}:{limits[0]:g}.",
                )
        low, high = self.size_mm
        if not 0 < low <= high or not np.isfinite(high):
            raise SettingsError(
                f"a size of {low}:{high} mm can't be", remedy="Give SMALLEST:LARGEST in mm, both above zero."
            )
        if self.sizes not in SIZES:
            raise SettingsError(f"there are no sizes '{self.sizes}'", remedy="Choose even or history.")
        if self.zone is not None:
            check_zone(self.zone)
        if self.type not in REQUEST_TYPES:
            raise SettingsError(
                f"there is no lesion type '{self.type}'", remedy=f"Choose one of {', '.join(REQUEST_TYPES)}."
            )
        if self.contrast is not None and self.cnr is not None:
            raise SettingsError("contrast and CNR are both given", remedy="Give one of them: each decides the other.")
        for name, limits in (("contrast", self.contrast), ("CNR", self.cnr)):
            if limits is not None and not (np.isfinite(limits).all() and limits[0] <= limits[1]):
                raise SettingsError(f"a {name} of {limits[0]}:{limits[1]} can't be", remedy="Give LOWEST:HIGHEST.")
        if self.rotation_degrees is not None and not np.isfinite(self.rotation_degrees):
            raise SettingsError("the rotation is no number", remedy="Give it in degrees.")
        if self.place is not None and not np.isfinite(self.place).all():
            raise SettingsError(f"{self.place} is no place", remedy="Give (slice, row, column) indices.")
        if self.seed < 0 or self.attempt < 0:
            raise SettingsError(f"a seed of {self.seed} can't be", remedy="Give a whole number from 0 up.")
        if self.generator not in GENERATORS:
            raise SettingsError(
                f"there is no generator '{self.generator}'",
                remedy=f"Choose one of {', '.join(GENERATORS)}.",
            )
        if self.generator == "deform" and (self.model, self.model_sha256) != (None, None):
            raise SettingsError("the generator 'deform' uses no model", remedy="Leave the model out, or choose singan.")


@dataclass(frozen=True, kw_only=True)
class CaseSettings:
    """What a case should be.

    Args:
        requests: the lesions wanted, each with a seed of its own.
        domain: what the background shows; None: guessed from the modality.
        fusion: "better" (matte blend at the scan's resolution, with its noise; on films a projection as deep as real
            nodules', in the film's own scale and sharpness), "alpha" (matte blend or projection alone) or "paper"
            (Eq. 17).
        margins: distances kept to pleura, vessels and airways.
        min_distance_mm: free tissue kept between two lesions' footprints.
        placement: by which danger mask and prior places are found.
        watermark: strength of the invisible mark inside the footprints, in pixel units (`mark`); 0: none.
        modality: "CT" where the user says that the background is a CT scan, since its file can't (NIfTI, NRRD, MHA).
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic where JSON comes in)

    requests: tuple[LesionRequest, ...]
    domain: Domain | None = None
    fusion: FusionName = "better"
    margins: Margins = field(default_factory=Margins)
    min_distance_mm: float = 5.0
    placement: PlacementMethod = field(default_factory=PlacementMethod)
    watermark: float = 0.0
    modality: Literal["CT"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "requests", tuple(self.requests))
        for name in ("min_distance_mm", "watermark"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.fusion not in FUSIONS:
            raise SettingsError(f"there is no fusion '{self.fusion}'", remedy=f"Choose one of {', '.join(FUSIONS)}.")
        if self.domain is not None and self.domain not in DOMAINS:
            raise SettingsError(f"there is no domain '{self.domain}'", remedy=f"Choose one of {', '.join(DOMAINS)}.")
        seeds = [request.seed for request in self.requests]
        if len(set(seeds)) != len(seeds):
            raise SettingsError("two lesions have the same seed", remedy="Give each lesion a seed of its own.")
        if not self.requests:
            raise SettingsError("no lesion is asked for", remedy="Ask for at least one (--lesions 1).")
        if len(self.requests) > 10_000:
            raise SettingsError("more than 10,000 lesions are asked for", remedy="Ask for fewer.")
        if not (np.isfinite(self.min_distance_mm) and self.min_distance_mm >= 0):
            raise SettingsError("the distance between lesions can't be negative", remedy="Give 0 mm or more.")
        if not (np.isfinite(self.watermark) and self.watermark >= 0):
            raise SettingsError("the watermark can't be of that strength", remedy="Give 0 for none, or more.")


@dataclass(frozen=True, kw_only=True)
class BackgroundReference:
    """Names the background of a case without saying whose it is: hash of its pixels, geometry, modality.

    `blanked` are boxes that were blanked in every slice before anything was drawn; its pixels are hashed after that.
    `value_limits` and `value_step` are what its stored form can hold: they decide how composed values are rounded.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic where JSON comes in)

    pixel_sha256: str
    shape: tuple[int, int, int]
    pixel_spacing_mm: tuple[float, float]
    spacing_source: str
    slice_spacing_mm: float
    modality: str
    domain: Domain
    value_limits: Range
    value_step: float
    source_slice: int | None = None
    blanked: tuple[PixelBox, ...] = ()
    oddities: tuple[str, ...] = ()

    @classmethod
    def of(cls, image: MedicalImage, *, domain: Domain, source_slice: int | None = None) -> BackgroundReference:
        """The reference of an image; refuses one whose spacing is unknown (GeometryError)."""
        slice_spacing, row_spacing, column_spacing = image.spacing_mm
        return cls(
            pixel_sha256=image.pixel_sha256,
            shape=image.shape,
            pixel_spacing_mm=(row_spacing, column_spacing),
            spacing_source=image.spacing_source,
            slice_spacing_mm=slice_spacing,
            modality=image.modality,
            domain=domain,
            value_limits=image.value_limits,
            value_step=image.rescale[0],
            source_slice=source_slice,
            blanked=image.blanked,
            oddities=image.oddities,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedLesion:
    """A lesion as it enters the background: arrays on the background's grid, and how they came about.

    Args:
        number: 1, 2 ...: value in the instance mask, segment number in the SEG.
        request: what was asked for, its place filled in: drawing it again gives this lesion.
        bank_entry, origin, type: which lesion it is made from.
        center: (slice, row, column) of its centre; `center_lps_mm` the same in LPS millimetres.
        diameter_mm: diameter drawn (sphere of equal volume).
        contrast: mean of lesion minus surroundings that was aimed at, in pixel units; `cnr` that over the noise. Of
            films dense is positive, also where it is dark.
        mode: "blend" replaces by alpha, "add" adds (radiographs: line integrals add).
        corner: (slice, row, column) index of the patch's first voxel; the patch lies wholly inside the background.
        intensity: int16 patch; `intensity_base` + it is the lesion's value (blend) or what is added (add).
        alpha: uint16 patch, 0..65535; its non-zero voxels are the footprint, those >= 0.5 the lesion's mask;
            strands that lead to it stay below.
        details: further drawn values (rotation, scale ...), plain numbers, for the record.
    """

    number: int
    request: LesionRequest
    bank_entry: str
    origin: str
    type: str
    center: Point
    center_lps_mm: Point
    diameter_mm: float
    contrast: float
    cnr: float
    mode: Mode
    corner: tuple[int, int, int]
    intensity: NDArray[np.int16]
    alpha: NDArray[np.uint16]
    intensity_base: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ok = (
            self.intensity.dtype == np.int16
            and self.alpha.dtype == np.uint16
            and self.alpha.ndim == 3
            and self.intensity.shape == self.alpha.shape
            and min(self.corner) >= 0
            and self.number >= 1
            and bool((self.alpha >= HALF).any())
            and self.mode in get_args(Mode)
        )
        if not ok:
            raise CaseError(
                f"lesion {self.number} of the case has arrays that can't be",
                remedy="Draw the case anew from its settings.",
            )

    @property
    def region(self) -> tuple[slice, slice, slice]:
        """Where the patch lies in the background."""
        a, b, c = (slice(low, low + size) for low, size in zip(self.corner, self.alpha.shape, strict=True))
        return a, b, c


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Everything that was chosen for one synthetic case.

    Args:
        background: which image it belongs to.
        settings: what was asked for.
        seed: of the whole case; each lesion's stream is derived from it and the request's own seed.
        lesions: as drawn.
        placement_method: how danger map and prior were found.
        bank_sha256: of the lesion bank that was drawn from.
        log: retries and vetoes in the order they happened, one sentence each.
        versions: of this product and the packages that touch pixels.
    """

    background: BackgroundReference
    settings: CaseSettings
    seed: int
    lesions: tuple[PlacedLesion, ...]
    placement_method: str = ""
    bank_sha256: str = ""
    log: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    case_version: int = CASE_VERSION

    def __post_init__(self) -> None:
        if self.case_version != CASE_VERSION:
            raise CaseError(
                f"this case has format version {self.case_version}, this program reads {CASE_VERSION}",
                remedy="Open it with the version of HiResMedSynth that wrote it (named under 'versions').",
            )
        for lesion in self.lesions:
            ends = [low + size for low, size in zip(lesion.corner, lesion.alpha.shape, strict=True)]
            if any(end > limit for end, limit in zip(ends, self.background.shape, strict=True)):
                raise CaseError(
                    f"lesion {lesion.number} reaches beyond the background",
                    remedy="Draw the case anew from its settings.",
                )

    def problem_with(self, image: MedicalImage) -> str | None:
        """Why this case wasn't drawn for that image, one clause; None where it was."""
        other = BackgroundReference.of(image, domain=self.background.domain)
        if other.pixel_sha256 != self.background.pixel_sha256:
            return "the pixels differ"
        ours, theirs = self.background, other
        found, wanted = ((one.slice_spacing_mm, *one.pixel_spacing_mm) for one in (theirs, ours))
        if not np.allclose(found, wanted, rtol=1e-6, atol=0):  # DICOM's 16 characters don't hold every float of a NIfTI
            is_now, was = (" x ".join(f"{value:.7g}" for value in spacing) for spacing in (found, wanted))
            return f"the spacing is {is_now} mm, not {was} mm"
        if ours.value_limits != theirs.value_limits or ours.value_step != theirs.value_step:
            return "its values are stored in another way"
        return None

    def pinned_settings(self) -> CaseSettings:
        """The settings with every drawn place filled in: edit one request, draw again, the others stay bit for bit."""
        return replace(self.settings, requests=tuple(lesion.request for lesion in self.lesions))
