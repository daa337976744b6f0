"""How much a millimetre of water changes the grey of a film, here and there: the film's unknown grey curve.

A film that this library projected has a known scale. Any other is compared with a projected patient: a chest film by
its ribs and vessels, which pass through the same scatter and processing as a nodule; an abdominal film by its spine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.joining.film_anatomy import FilmAnatomy
from HiResMedSynthLib.joining.film_contrasts import FilmReference
from HiResMedSynthLib.project import MU_WATER_PER_MM, ODDITY, STORED_PER_LINE_INTEGRAL

MODEL, ATTENUATION = "model-derived", "attenuation-derived"
LEAST_SHARE = 0.3  # of the slope in the lungs that is left behind heart and diaphragm
# the scale by detail over that by the step from lungs to mediastinum: 95th percentile of clean films; beyond it the
# detail is disease, lines or hardware
MOST_OVER_STEP = 2.8
FLANK_MM = 30.0  # beside the spine
FEWEST_ROWS = 20
SHALLOW_BITS = 8  # a film of no more shows a lesion in coarse steps
CLIPPED_SHARE = 0.01  # of where lesions may go


@dataclass(frozen=True, kw_only=True)
class FilmScale:
    """Grey levels that a millimetre of water makes.

    Args:
        grey_per_mm: in the lungs (or flanks), dense = positive.
        knots: grey levels (dense = high), ascending, at which `shares` are given.
        shares: of `grey_per_mm` there: films compress what is dense.
        contrast_is: "model-derived" or "attenuation-derived", for case.json.
        source: how it was found, a clause.
    """

    grey_per_mm: float
    knots: tuple[float, ...] = ()
    shares: tuple[float, ...] = ()
    contrast_is: str = MODEL
    source: str

    def at(self, grey: NDArray[Any]) -> NDArray[np.float64]:
        """Grey levels a millimetre of water at places of that grey (dense = high); same shape."""
        if not self.knots:
            return np.full(np.shape(grey), self.grey_per_mm)
        return np.asarray(self.grey_per_mm * np.interp(grey, self.knots, self.shares), dtype=np.float64)


def projected_scale(image: MedicalImage) -> FilmScale | None:
    """The scale of a film that `project` made and that has not left its values since; None for any other."""
    if ODDITY not in image.oddities:
        return None
    per_mm = MU_WATER_PER_MM * STORED_PER_LINE_INTEGRAL
    return FilmScale(grey_per_mm=per_mm, contrast_is=ATTENUATION, source="line integrals: the film is a projection")


def region_ranges(
    film: NDArray[Any], lungs: NDArray[np.bool_], mediastinum: NDArray[np.bool_]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """((median, 5th to 95th percentile) of the lungs, the same of heart and mediastinum); zeros where one is unseen."""
    found = []
    for region in (lungs, mediastinum):
        low, middle, high = np.percentile(film[region], [5, 50, 95]) if region.any() else (0.0, 0.0, 0.0)
        found.append((float(middle), float(high - low)))
    return found[0], found[1]


def chest_scale(
    film: NDArray[Any],
    lungs: NDArray[np.bool_],
    mediastinum: NDArray[np.bool_],
    anatomy: FilmAnatomy,
    reference: FilmReference,
) -> FilmScale | None:
    """The scale of a chest film by its ribs and vessels; behind heart and diaphragm by their range against the lungs'.

    None where the film shows no structure, or no lungs.

    Args:
        film: `[row, column]`, dense = high.
        lungs, mediastinum: same shape.
        anatomy: of this film.
        reference: a projected chest, measured in the same way.
    """
    if anatomy.spread <= 0:
        return None
    per_mm = anatomy.spread / reference.detail
    source = "ribs and vessels of the film against those of a projected chest"
    (lung, lung_range), (dense, dense_range) = region_ranges(film, lungs, mediastinum)
    if dense <= lung or lung_range <= 0:
        return FilmScale(grey_per_mm=per_mm, source=f"{source}; how far dense regions are compressed is unknown")
    most = MOST_OVER_STEP * (dense - lung) / reference.step
    if per_mm > most:
        per_mm, source = most, f"step from lungs to mediastinum: more detail than in clean lungs, so not the {source}"
    share = (dense_range / reference.mediastinum_range) / (lung_range / reference.lung_range)
    return FilmScale(
        grey_per_mm=per_mm, knots=(lung, dense), shares=(1.0, round(min(max(share, LEAST_SHARE), 1.0), 3)),
        source=source,
    )  # fmt: skip


def spine_contrast(film: NDArray[Any], spine: NDArray[np.bool_], free: NDArray[np.bool_], *, column_mm: float) -> float:
    """Median over the rows of spine against the 30 mm beside it, dense = positive; 0 where too little is seen."""
    from scipy.ndimage import maximum_filter1d

    reach = 2 * round(FLANK_MM / column_mm) + 1
    flank = (maximum_filter1d(spine.astype(np.uint8), reach, axis=1) > 0) & free
    steps = [
        float(np.median(row[bone]) - np.median(row[beside]))
        for row, bone, beside in zip(film, spine, flank, strict=True)
        if bone.any() and beside.any()
    ]
    return float(np.median(steps)) if len(steps) >= FEWEST_ROWS else 0.0


def abdomen_scale(
    film: NDArray[Any], spine: NDArray[np.bool_], free: NDArray[np.bool_], reference: FilmReference, *, column_mm: float
) -> FilmScale | None:
    """The scale of an abdominal film by its spine; None where none stands out. Arguments as for `spine_contrast`."""
    contrast = spine_contrast(film, spine, free, column_mm=column_mm)
    if contrast <= 0:
        return None
    return FilmScale(
        grey_per_mm=contrast / reference.spine,
        source="spine of the film against that of a projected abdomen; compression of dense regions is not modelled",
    )


def warnings(image: MedicalImage, free: NDArray[np.bool_]) -> tuple[str, ...]:
    """What makes a film a poor ground for faint shadows, one sentence each.

    Args:
        image: the film.
        free: `[row, column]`, where lesions may go.
    """
    pixels = image.pixels[0]
    found = []
    bits = image.bits_stored or 8 * pixels.dtype.itemsize
    if bits <= SHALLOW_BITS:
        found.append(f"{bits}-bit film: a faint lesion has only a few grey levels")
    chosen = pixels[free] if free.any() else pixels
    for end, word in ((pixels.min(), "smallest"), (pixels.max(), "largest")):
        share = float((chosen == end).mean())
        if share > CLIPPED_SHARE:
            found.append(
                f"{share:.0%} of where lesions may go has the {word} value of the film: it is clipped there, and a "
                "lesion loses contrast"
            )
    return tuple(found)
