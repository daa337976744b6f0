"""Held-out log-likelihood of the densities that ship: `python -m Testing.benchmarks.density_prior --help`.

Each density is rebuilt without a third of the patients by the code that made the shipped one, and scored at the places
of their lesions, in nats over a place drawn evenly. It asks of whole lungs what crops of 45 mm can't tell; of the lungs
it sees a box or a mean shape, never the person's own: the tables hold places without their pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.patient_split import fold_of
from HiResMedSynthLib.placement.location import FLOOR
from HiResMedSynthLib.placement.lungs_cxr import shipped_template
from Training.build_location_prior import (
    CT_BINS,
    CT_BLUR_BINS,
    CXR_BINS,
    CXR_BLUR_BINS,
    FILM_TABLES,
    KUB_BINS,
    KUB_BOX_MM,
    TAILS,
    density,
    film_nodules,
    film_rows,
    nodule_places,
    nodule_rows,
    population_box,
    stone_density,
    stone_places,
    stone_rows,
)
from Training.film_density import FilmSites, cross_fitted, interval

BOOTSTRAPS = 2000
LUNG_LABELS = (4, 5, 6)  # of the map of LIDC-IDRI-0001
NEIGHBOURS = 20  # stones: the height of a slice correlates .45 with the next one's, .1 with the tenth's
MAPS = ("blurred lung mask", "density")
Grid = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """What a fold's lesions taught.

    Args:
        density: over the bins of the box.
        shares: `[lesion, axis]` of all lesions in that box, 0..1 inside.
        support: bins that count as possible; None: all.
        lungs: blurred lung mask over the same bins, or None.
    """

    density: Grid
    shares: NDArray[np.float64]
    support: NDArray[np.bool_] | None = None
    lungs: Grid | None = None


Learn = Callable[[NDArray[np.bool_]], Learned]  # which lesions may be learned from


def held_out_nats(folds: NDArray[np.int64], learn: Learn) -> NDArray[np.float64]:
    """`[lesion, map]` nats over even of `MAPS` at each lesion, learned from other folds.

    NaN: outside the support, or of fold -1, from which is only learned.
    """
    nats = np.full((len(folds), len(MAPS)), np.nan)
    for fold in np.unique(folds[folds >= 0]):
        found = learn(folds != fold)
        bins = found.density.shape
        inside = ((found.shares >= 0) & (found.shares < 1)).all(axis=1) & (folds == fold)
        support = np.ones(bins, dtype=bool) if found.support is None else found.support
        at = tuple((found.shares[inside] * bins).astype(int).T)
        for column, grid in enumerate((found.lungs, found.density)):
            if grid is not None:
                raised = (grid / grid.mean() + FLOOR) * support
                over_even = np.where(support, raised / raised[support].mean(), np.nan)
                nats[inside, column] = np.log(over_even[at])
    return nats


def summary(groups: Sequence[str], values: NDArray[np.float64], weights: NDArray[np.float64]) -> list[float]:
    """[mean over groups, low, high of its 95 % interval]; groups are resampled; NaN values are left out."""
    known = ~np.isnan(values)
    _, group = np.unique(np.asarray(groups)[known], return_inverse=True)
    total = np.bincount(group, weights[known])
    means = np.bincount(group, weights[known] * values[known]) / total
    draws = np.random.default_rng(1).integers(len(means), size=(BOOTSTRAPS, len(means)))
    low, high = np.percentile(means[draws].mean(axis=1), [2.5, 97.5])
    return [round(float(value), 3) for value in (means.mean(), low, high)]


def score(
    groups: Sequence[str], learn: Learn, *, folds: NDArray[np.int64] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Figures of one row: lesions, groups, and each map's nats with interval. Folds go by group where none are told."""
    if folds is None:
        folds = np.array([fold_of(group) for group in groups])
    weights = np.ones(len(groups)) if weights is None else weights
    nats = held_out_nats(folds, learn)
    counted = ~np.isnan(nats[:, 1])
    told: dict[str, Any] = {
        "lesions": int(counted.sum()),
        "left out": int((~counted & (folds >= 0)).sum()),
        "groups": len(np.unique(np.asarray(groups)[counted])),
    }
    columns = dict(zip(MAPS, nats.T, strict=True)) | {"density over blurred": nats[:, 1] - nats[:, 0]}
    return told | {k: summary(groups, v, weights) for k, v in columns.items() if not np.isnan(v).all()}


def mean_lung_box() -> NDArray[np.float64]:
    """Top, bottom, left, right of the films' mean lung box, shares of the picture."""
    with (files("HiResMedSynthLib.placement") / "prior_data" / "location_prior.npz").open("rb") as handle:
        return np.asarray(np.load(handle, allow_pickle=False)["cxr_population_box"])


def template_lungs() -> Grid:
    """`[32, 32]` share of each bin of the lung box that is lung in the mean shape."""
    step = len(shipped_template().lungs) // CXR_BINS
    return np.asarray(
        shipped_template().lungs.reshape(CXR_BINS, step, CXR_BINS, step).mean(axis=(1, 3)), dtype=np.float64
    )


def film_scores(tables: Path) -> dict[str, Any]:
    """Nodules on chest films, in the mean lung box (fitted to other films, not learned from nodules)."""
    top, bottom, left, right = mean_lung_box()
    rows = film_rows(tables)
    shares = (film_nodules(tables) - (top, left)) / (bottom - top, right - left)
    people = [row.get("patient_id") or f"film {row['image']}" for row in rows]
    lungs = template_lungs()

    def learn(kept: NDArray[np.bool_], support: NDArray[np.bool_] | None = None) -> Learned:
        grid = density(shares[kept], CXR_BINS, CXR_BLUR_BINS).astype(np.float64)
        return Learned(density=grid, shares=shares, support=support, lungs=lungs)

    found = {
        "chest film, in the lung box": score(people, learn),
        "chest film, in the mean lungs": score(people, lambda kept: learn(kept, lungs > 0.5)),
    }
    for name in FILM_TABLES:
        tested = np.array([0 if row["table"] == name else -1 for row in rows])
        found[f"the same, {name}, learned on the other table"] = score(
            people, lambda kept: learn(kept, lungs > 0.5), folds=tested
        )
    return found


def site_scores(tables: Path) -> dict[str, Any]:
    """A table of film boxes as a site's own films (`Training/train_density.py`), the other table's density as shipped.

    Nats over even in the mean lungs at the places of films (of NIH's boxes: patients) left out, five folds; share and
    smoothing are chosen within them.
    """
    (top, bottom, left, right), rows = mean_lung_box(), film_rows(tables)
    shares = (film_nodules(tables) - (top, left)) / (bottom - top, right - left)
    lung = np.where(template_lungs() > 0.5, 1.0, 0.0)
    at = np.clip((shares * CXR_BINS).astype(int), 0, CXR_BINS - 1)
    held = ((shares >= 0) & (shares < 1)).all(axis=1) & (lung[at[:, 0], at[:, 1]] > 0)
    found = {}
    for name in FILM_TABLES:
        own = [
            FilmSites(patient=row.get("patient_id") or f"film {row['image']}", shares=share[np.newaxis], lung=lung)
            for row, share, inside in zip(rows, shares, held, strict=True)
            if inside and row["table"] == name
        ]
        other = np.array([row["table"] != name for row in rows])
        shipped = density(shares[other], CXR_BINS, CXR_BLUR_BINS).astype(np.float64)
        before, learned = cross_fitted(own, shipped)
        told = {"shipped": interval(before), "learned": interval(learned), "gained": interval(learned - before)}
        found[name] = {"lesions": len(own), "patients or films": len(before)} | told
    return found


def ct_scores(tables: Path, labels: Path) -> dict[str, Any]:
    """Nodules on CT, in the population's lung box, which is rebuilt too, and in the lungs of LIDC-IDRI-0001."""
    places, people = nodule_places(tables), [row["patient_id"] for row in nodule_rows(tables)]
    mask = lungs_in_box(labels)
    blurred = gaussian_filter(mask.astype(np.float64), CT_BLUR_BINS, mode="nearest")

    def learn(kept: NDArray[np.bool_], support: NDArray[np.bool_] | None = None) -> Learned:
        low, high = population_box(places[kept])
        shares = (places - low) / (high - low)
        grid = density(shares[kept], CT_BINS, CT_BLUR_BINS).astype(np.float64)
        return Learned(density=grid, shares=shares, support=support, lungs=blurred)

    return {
        "CT, in the lung box": score(people, learn),
        "CT, in the lungs of one person": score(people, lambda kept: learn(kept, mask)),
    }


def lungs_in_box(labels: Path) -> NDArray[np.bool_]:
    """`[24, 24, 24]` z upwards, y to the back, x to the left: the lungs of a map of labels in the box around them."""
    import SimpleITK

    lungs = np.isin(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(labels))), LUNG_LABELS)
    cut = lungs[bounding_box(lungs)].astype(np.float32)
    return np.asarray(zoom(cut, [CT_BINS / size for size in cut.shape], order=1) > 0.5)


def stone_scores(tables: Path) -> dict[str, Any]:
    """Stones in the box of the density, and in a box on each side that holds 95 % of the learned ones."""
    places, weights = stone_places(tables)
    groups = [f"slices {int(row['source'].removeprefix('src')) // NEIGHBOURS}" for row in stone_rows(tables)]
    first, last = np.array(KUB_BOX_MM)
    shares, folded = (places - first) / (last - first), np.stack([places[:, 0], np.abs(places[:, 1])], axis=1)
    centres = [low + (np.arange(bins) + 0.5) / bins * (high - low)
               for low, high, bins in zip(first, last, KUB_BINS, strict=True)]  # fmt: skip

    def learn(kept: NDArray[np.bool_], *, flanks: bool = False) -> Learned:
        grid = stone_density(places[kept], weights[kept]).astype(np.float64)
        low, high = np.percentile(folded[kept], TAILS, axis=0)
        above, aside = np.meshgrid(centres[0], np.abs(centres[1]), indexing="ij")
        inside = (above >= low[0]) & (above <= high[0]) & (aside >= low[1]) & (aside <= high[1])
        return Learned(density=grid, shares=shares, support=inside if flanks else None)

    return {
        "stones, in the box": score(groups, learn, weights=weights),
        "stones, in the flanks": score(groups, lambda kept: learn(kept, flanks=True), weights=weights),
    }


def as_table(found: dict[str, Any]) -> str:
    """The rows as Markdown."""
    names = (*MAPS, "density over blurred")
    lines = [f"| even ... | lesions | left out | groups | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for row, told in found.items():
        shown = ["{:.3f} ({:.3f} to {:.3f})".format(*told[name]) if name in told else "-" for name in names]
        lines.append(f"| {row} | {told['lesions']} | {told['left out']} | {told['groups']} | {' | '.join(shown)} |")
    return "\n".join(lines)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the shared data.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON to write.")
def main(data: Path, out: Path) -> None:
    """Scores the densities of films, CT and stones on lesions that they weren't learned from."""
    labels = data / "lidc_0001_ct" / "LIDC-IDRI-0001_simple_labels_256.nrrd"
    found = film_scores(data / "label_tables") | ct_scores(data / "lidc_location_prior", labels)
    found |= stone_scores(data / "label_tables")
    sites = site_scores(data / "label_tables")
    out.write_text(json.dumps(found | {"a site's own": sites}, indent=1), encoding="utf-8")
    click.echo(as_table(found))
    click.echo(
        "\n| a site's own films | lesions | patients or films | shipped, over even | learned | gained |\n"
        + "|---" * 6
        + "|"
    )
    for name, told in sites.items():
        shown = ["{:+.3f} ({:+.3f} to {:+.3f})".format(*told[which]) for which in ("shipped", "learned", "gained")]
        click.echo(f"| {name} | {told['lesions']} | {told['patients or films']} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
