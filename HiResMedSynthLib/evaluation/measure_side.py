"""Everything that is measured of the pictures of one side, in threads, from the cache where it was measured before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.evaluation import image_statistics, inception, perceptual, texture_features
from HiResMedSynthLib.evaluation.comparable import Grid, PictureFacts, Progress
from HiResMedSynthLib.evaluation.feature_cache import FeatureCache
from HiResMedSynthLib.evaluation.image_sets import Loaded, Picture, Source, pictures, read_source
from HiResMedSynthLib.evaluation.in_threads import in_threads
from HiResMedSynthLib.evaluation.lesion_statistics import LesionNumbers, lesion_numbers
from HiResMedSynthLib.evaluation.st_lpips import st_lpips

Measure = Callable[[Picture, Grid], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class SideMeasures:
    """Of one side, pictures in the order of their facts.

    Args:
        facts: of the pictures.
        features: by name of the feature space, float64 `[picture, feature]`.
        statistics: by name, float64 `[picture]`; NaN where a picture doesn't have it.
        spectra: float64 `[picture, band]`, log10 of power.
        lesions: of all sources, where somebody marked them.
        windows_differ: as in `Grid`.
        from_cache: numbers of how many pictures were there already.
    """

    facts: tuple[PictureFacts, ...]
    features: dict[str, NDArray[np.float64]]
    statistics: dict[str, NDArray[np.float64]]
    spectra: NDArray[np.float64]
    lesions: tuple[LesionNumbers, ...]
    windows_differ: bool
    from_cache: int

    @property
    def groups(self) -> list[str]:
        """The patient of each picture."""
        return [one.group for one in self.facts]


def measure_side(
    facts: Sequence[PictureFacts],
    grid: Grid,
    *,
    most: int,
    spaces: Sequence[str],
    cache: FeatureCache,
    progress: Progress,
    what: str,
) -> SideMeasures:
    """Measures all pictures of a side.

    Args:
        facts: from `survey`, pictures of one source together.
        grid: how they are brought to 0..1.
        most: slices of a volume, as in `survey`.
        spaces: feature spaces, keys of `SPACES`.
        cache: of numbers measured before.
        progress: called with (done, total, what).
        what: name of the side.

    Raises:
        HiResMedSynthError: a source can't be read any more, or a feature space needs what is not installed.
    """
    wanted = {space: SPACES[space] for space in spaces}
    by_source: dict[str, list[PictureFacts]] = {}
    for one in facts:
        by_source.setdefault(one.source.name, []).append(one)
    numbers: dict[tuple[str, str], NDArray[np.float64]] = {}
    lesions: list[LesionNumbers] = []
    missing = 0

    def work(held: list[PictureFacts]) -> tuple[dict[tuple[str, str], NDArray[np.float64]], list[LesionNumbers], int]:
        return _of_source(held[0].source, held, grid, {**wanted, **ALWAYS}, most, cache)

    for done, (found, seen, new) in enumerate(in_threads(work, list(by_source.values())), start=1):
        numbers |= found
        lesions += seen
        missing += new
        progress(done, len(by_source), what)
    table = {kind: np.stack([numbers[one.name, kind] for one in facts]) for kind in {**wanted, **ALWAYS}}
    names = _statistic_names(grid)
    return SideMeasures(
        facts=tuple(facts),
        features={space: table[space] for space in wanted},
        statistics=dict(zip(names, table["statistics"].T, strict=True)),
        spectra=table["spectrum"],
        lesions=tuple(lesions),
        windows_differ=grid.windows_differ,
        from_cache=len(facts) - missing,
    )


def _of_source(
    source: Source,
    held: list[PictureFacts],
    grid: Grid,
    measures: dict[str, Measure],
    most: int,
    cache: FeatureCache,
) -> tuple[dict[tuple[str, str], NDArray[np.float64]], list[LesionNumbers], int]:
    """(numbers by picture and kind, lesions, pictures that had to be measured)."""
    found: dict[tuple[str, str], NDArray[np.float64]] = {}
    for one in held:
        for kind in measures:
            kept = cache.get(*_key(one, grid, kind))
            if kept is not None:
                found[one.name, kind] = kept
    new = [one for one in held if any((one.name, kind) not in found for kind in measures)]
    if not new and not held[0].lesions:
        return found, [], 0
    loaded: Loaded = read_source(source)
    by_name = {picture.name: picture for picture in pictures(source, loaded, most=most)}
    for one in new:
        for kind, measure in measures.items():
            if (one.name, kind) not in found:
                found[one.name, kind] = measure(by_name[one.name], grid)
                cache.put(found[one.name, kind], *_key(one, grid, kind))
    return found, lesion_numbers(source.name, source.group, loaded, grid), len(new)


def _key(one: PictureFacts, grid: Grid, kind: str) -> tuple[object, ...]:
    window = grid.window or one.shown
    shown = (window.center, window.width, one.bright_is_dense, grid.size, grid.step)
    return (kind, VERSIONS[kind], one.sha256, one.kind, *shown)


def _texture(picture: Picture, grid: Grid) -> NDArray[np.float64]:
    return texture_features.texture_features(grid.values(picture.image))


def _learned(picture: Picture, grid: Grid) -> NDArray[np.float64]:
    return perceptual.vgg_features(grid.values(picture.image))


def _inception(picture: Picture, grid: Grid) -> NDArray[np.float64]:
    return inception.inception_features(grid.values(picture.image))


def _statistics(picture: Picture, grid: Grid) -> NDArray[np.float64]:
    image = picture.image
    unit = grid.values(image)
    hounsfield = None
    if image.units == "HU":
        hounsfield = image.pixels[0].astype(np.float32)
        if unit.shape != hounsfield.shape:
            import cv2

            hounsfield = cv2.resize(hounsfield, unit.shape[::-1], interpolation=cv2.INTER_AREA)
    found = image_statistics.image_statistics(unit, hounsfield)
    return np.array([found[name] for name in _statistic_names(grid)])


def _spectrum(picture: Picture, grid: Grid) -> NDArray[np.float64]:
    return image_statistics.spectrum(grid.values(picture.image))


def _statistic_names(grid: Grid) -> tuple[str, ...]:
    return image_statistics.CT_NAMES if grid.kind == "CT" else image_statistics.GREY_NAMES


SPACES: dict[str, Measure] = {
    texture_features.SPACE: _texture,
    perceptual.SPACE: _learned,
    inception.SPACE: _inception,
}
NETWORKS: dict[str, Callable[[], object]] = {
    perceptual.SPACE: st_lpips,
    inception.SPACE: inception.inception,
}
ALWAYS: dict[str, Measure] = {"statistics": _statistics, "spectrum": _spectrum}
VERSIONS = {
    texture_features.SPACE: texture_features.VERSION,
    perceptual.SPACE: perceptual.VERSION,
    inception.SPACE: inception.VERSION,
    "statistics": image_statistics.VERSION,
    "spectrum": image_statistics.VERSION,
}
