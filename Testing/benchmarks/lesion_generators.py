r"""The proof of the lesion generators: all of them by one protocol, against real nodules that were resampled alike.

python -m Testing.benchmarks.lesion_generators --nodules FOLDER_OF_lidc_nodule_voi_hu --generator NAME=samples.npz

Real nodules: the strict ones of Training.nodule_grids (`--grids` takes its file). Each is turned about the slice axis
by a random angle and mirrored, in one cubic resampling that refits its box; a sample of a generator goes through the
same, `deform` through one resampling that deforms and turns it. Readers are trained on folds by patient; AUC is told
for all patients, and for the real nodules of patients held out (with the samples whose source is of such a patient, or
that have none). Dice, pieces and textures are measured on samples that are not turned; all boxes are fitted alike.

samples.npz: `values` [n, 2, 32, 32, 32] and `voxel_mm` [n] as in Training.nodule_grids, `source` int [n], the row of
the source nodule in the grids file or -1; optional `diameter_mm` [n], what was asked for (else volumes are
compared with the source's, or the nodules' median), and `reconstruction` [k, 2, 32, 32, 32] with
`reconstruction_source` [k], the rows of the strict nodules that were rebuilt.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation import lesion_diversity as diversity
from HiResMedSynthLib.evaluation.machine_reader import cnn_reader, feature_reader
from HiResMedSynthLib.evaluation.reading import Reading
from HiResMedSynthLib.evaluation.texture_distance import (
    cuts,
    filter_features,
    frechet,
    sifid_vgg,
    texture_distance,
    vgg_features,
)
from HiResMedSynthLib.lesion.deform import FINE_BEND, Deformation, draw_deformation
from HiResMedSynthLib.lesion.lesion_grid import BOX_ALPHA, MARGIN
from HiResMedSynthLib.lesion.render import BEND_EXTENT

OF_EACH = ("values", "voxel_mm", "patient", "held_out", "row")  # real nodule
STRENGTHS = (1.0, 1.5, 2.0)
HALVINGS = 4
WIDE = 60  # voxels in which a turned lesion surely fits
TEXTURE_LESIONS = 40
NULL, INTERPOLATION = "real against real", "untouched against resampled"


@dataclass(frozen=True, kw_only=True, eq=False)
class Reals:
    """Strict nodules; `row` is each one's place in the grids file, `library` all its nodules, boxes refitted."""

    values: NDArray[np.float32]
    voxel_mm: NDArray[np.float32]
    patient: NDArray[np.str_]
    held_out: NDArray[np.bool_]
    row: NDArray[np.int64]
    library: NDArray[np.float32]
    library_patient: NDArray[np.str_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What a generator made: `seen` as the readers see it, `plain` not turned; `source` indexes the library, or -1."""

    seen: NDArray[np.float32]
    plain: NDArray[np.float32]
    voxel_mm: NDArray[np.float32]
    source: NDArray[np.int64]
    wanted_mm3: NDArray[np.float64]
    empty: int = 0
    rmse_hu: float | None = None


def turn(rng: np.random.Generator) -> Deformation:
    """An in-plane turn and flips, nothing else: what real nodules and finished samples get."""
    return replace(draw_deformation(rng, strength=0.0), tilt_degrees=(0.0, 0.0))


def regrid(values: NDArray[np.floating], deformation: Deformation) -> tuple[NDArray[np.float32], float]:
    """(the grid deformed and refitted to its box in one cubic resampling, new over old voxel size)."""
    alpha = values[1].astype(np.float64)
    size = alpha.shape[0]
    centroid = np.array([np.average(np.arange(size), weights=alpha.sum(axis=others) + 1e-12) for others in OTHERS])
    diameter = (6.0 * float(alpha.sum()) / math.pi) ** (1 / 3)

    def places(axes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        grid = np.stack(np.meshgrid(*axes, indexing="ij"))
        source = np.tensordot(deformation.matrix(), grid, axes=1)
        if not deformation.bend.any():
            return np.asarray(source + centroid[:, None, None, None])
        at = (source / (BEND_EXTENT * diameter) + 0.5) * (FINE_BEND - 1)
        bend = np.stack([map_coordinates(axis, at, order=1, mode="constant") for axis in deformation.fine_bend])
        return np.asarray(source + diameter * bend + centroid[:, None, None, None])

    wide = [np.arange(WIDE) - (WIDE - 1) / 2] * 3
    seen = np.argwhere(map_coordinates(alpha, places(wide), order=1, mode="constant") > BOX_ALPHA)
    low, high = seen.min(axis=0), seen.max(axis=0) + 1
    step = float((high - low).max()) / (size - MARGIN)
    middle = (low + high - 1) / 2 - (WIDE - 1) / 2
    at = places([m + step * (np.arange(size) - (size - 1) / 2) for m in middle]) + 2
    padded = [spline_filter(np.pad(channel.astype(np.float64), 2), 3) for channel in values]
    intensity, matte = (map_coordinates(channel, at, order=3, mode="constant", prefilter=False) for channel in padded)
    matte = np.clip(matte, 0, 1)
    tissue = values[0][alpha > BOX_ALPHA] / alpha[alpha > BOX_ALPHA]
    intensity = np.clip(intensity, matte * float(tissue.min()), matte * float(tissue.max()))
    return np.stack([intensity, matte]).astype(np.float32), step


OTHERS = ((1, 2), (0, 2), (0, 1))


def turned(grids: NDArray[np.floating], seed: int) -> NDArray[np.float32]:
    """Every grid under a turn of its own."""
    rng = np.random.default_rng([seed, 1])
    return np.stack([regrid(grid, turn(rng))[0] for grid in grids])


def deformed(reals: Reals, strength: float, seed: int) -> Samples:
    """One deformed sample of every real nodule."""
    rng = np.random.default_rng([seed, 2, round(100 * strength)])
    seen, plain, steps = [], [], []
    for grid in reals.values:
        drawn = draw_deformation(rng, strength=strength)
        seen.append(regrid(grid, drawn)[0])
        made, step = regrid(grid, replace(drawn, rotation_degrees=0.0, flips=(False, False, False)))
        plain.append(made)
        steps.append(step)
    return Samples(
        seen=np.stack(seen),
        plain=np.stack(plain),
        voxel_mm=reals.voxel_mm * np.array(steps, np.float32),
        source=reals.row,
        wanted_mm3=diversity.volumes_mm3(reals.values, reals.voxel_mm),
    )


def generated(path: Path, reals: Reals, library_mm3: NDArray[np.float64], seed: int) -> Samples:
    """The samples of a file, those without a body left out and counted."""
    with np.load(path, allow_pickle=False) as packed:
        values, voxel_mm = packed["values"].astype(np.float32), packed["voxel_mm"].astype(np.float32)
        source = packed["source"].astype(np.int64)
        asked = packed["diameter_mm"].astype(np.float64) if "diameter_mm" in packed else None
        rebuilt = [
            diversity.reconstruction_rmse_hu(made.astype(np.float32), reals.values[reals.row == index][0])
            for made, index in zip(packed["reconstruction"], packed["reconstruction_source"], strict=True)
        ] if "reconstruction" in packed else []  # fmt: skip
    full = (values[:, 1] > diversity.MASK_ALPHA).sum(axis=(1, 2, 3)) >= 20
    values, voxel_mm, source = values[full], voxel_mm[full], source[full]
    refitted = [regrid(grid, Deformation.none()) for grid in values]
    wanted = np.where(source >= 0, library_mm3[source], np.median(library_mm3))
    return Samples(
        seen=turned(values, seed + 1),
        plain=np.stack([grid for grid, _ in refitted]),
        voxel_mm=voxel_mm * np.array([step for _, step in refitted], np.float32),
        source=source,
        wanted_mm3=wanted if asked is None else math.pi / 6 * asked[full] ** 3,
        empty=int((~full).sum()),
        rmse_hu=float(np.median(rebuilt)) if rebuilt else None,
    )


def read(
    reals: Reals, real: NDArray[np.float32], samples: Samples, seed: int, *, cnn: dict[str, Any] | None
) -> dict[str, Any]:
    """AUC of both readers, for all patients and for those held out."""
    ours = np.array([f"sample {k}" for k in range(len(samples.source))])
    groups = np.where(samples.source >= 0, reals.library_patient[samples.source], ours)
    held = np.isin(groups, reals.patient[reals.held_out]) | (samples.source < 0)
    found = {"features": feature_reader(real, samples.seen, reals.patient, groups, seed)}
    if cnn is not None:
        found["cnn"] = cnn_reader(real, samples.seen, reals.patient, groups, seed, **cnn)
    return {
        f"auc_{name}{side}": _told(part)
        for name, reading in found.items()
        for side, part in (("", reading), ("_held_out", reading.subset(reals.held_out, held)))
    }


def read_among_sources(reals: Reals, real: NDArray[np.float32], samples: Samples, seed: int) -> dict[str, Any]:
    """AUC by features against the samples' sources alone; and of `deform` of these, against them and against all."""
    chosen = np.isin(reals.row, samples.source)
    if chosen.all() or (samples.source < 0).any():
        return {}  # all are sources, or a sample has none
    few = replace(reals, **{name: getattr(reals, name)[chosen] for name in OF_EACH})
    same = deformed(few, 1.0, seed)
    names = ("auc_features_of_sources", "auc_deform_of_sources", "auc_deform_of_same")
    sides = ((few, real[chosen], samples), (few, real[chosen], same), (reals, real, same))
    return {name: read(*how, seed, cnn=None)["auc_features"] for name, how in zip(names, sides, strict=True)}


def read_halves(reals: Reals, real: NDArray[np.float32], seed: int, *, cnn: dict[str, Any] | None) -> dict[str, Any]:
    """Half of the real nodules against the other half, pooled over several halvings: what a reader finds in nothing."""
    found = {}
    for name, count in (("features", HALVINGS), ("cnn", HALVINGS // 2 if cnn is not None else 0)):
        wins, pairs = np.zeros((2, len(real), len(real)))
        for halving in range(count):
            order = np.random.default_rng([seed, 3, halving]).permutation(len(real))
            one, other = np.array_split(order, 2)
            sides = real[one], real[other], reals.patient[one], reals.patient[other], seed
            reading = feature_reader(*sides) if name == "features" else cnn_reader(*sides, **(cnn or {}))
            wins[np.ix_(one, other)] += reading.wins
            pairs[np.ix_(one, other)] += reading.pairs
        if count:
            pooled = Reading(wins=wins, pairs=pairs, groups_real=reals.patient, groups_fake=reals.patient)
            found[f"auc_{name}"] = _told(pooled)
    return found


def _told(reading: Reading) -> list[float]:
    return [round(float(number), 3) for number in (reading.auc, *reading.interval())]


def novelty(reals: Reals, samples: Samples, *, of_reals: bool = False) -> dict[str, Any]:
    """Overlaps, copies, volumes, pieces; with `of_reals` the samples are the real nodules themselves."""
    exclude = reals.patient[:, None] == reals.library_patient[None, :] if of_reals else None
    near = diversity.nearest_real(samples.plain, reals.library, exclude=exclude)
    found: dict[str, Any] = {
        "n": len(samples.plain) + samples.empty,
        "empty": samples.empty,
        "dice_nearest": _points(near.dice),
        "copy_correlation": [*_points(near.correlation), round(float(near.correlation.max()), 3)],
        "pairwise_dice": round(diversity.pairwise_dice(samples.plain), 3),
        "one_piece": round(float(np.mean([diversity.is_one_piece(grid) for grid in samples.plain])), 3),
    }
    if not of_reals:
        made = diversity.volumes_mm3(samples.plain, samples.voxel_mm)
        found["volume"] = [round(x, 2) for x in diversity.volume_percentiles(made, samples.wanted_mm3)]
    sourced = [(grid, reals.library[k]) for grid, k in zip(samples.plain, samples.source, strict=True) if k >= 0]
    if sourced and not of_reals:
        found["dice_source"] = _points([diversity.dice_of(*pair) for pair in sourced])
        found["dice_source_best"] = _points([diversity.best_dice_of(*pair) for pair in sourced])
    if samples.rmse_hu is not None:
        found["reconstruction_rmse_hu"] = round(samples.rmse_hu, 1)
    partner = near.dice_index if of_reals else np.where(samples.source >= 0, samples.source, near.dice_index)
    return found | _textures(reals, samples, partner, of_reals=of_reals)


def _textures(reals: Reals, samples: Samples, partner: NDArray[np.int64], *, of_reals: bool) -> dict[str, Any]:
    """Median distance of some samples to their source (or nearest real nodule), and of all samples to all nodules.

    Sets must be alike in their share of calcified nodules; the floor is the mean over halvings of the real ones.
    """
    rng = np.random.default_rng(4)
    some = rng.permutation(len(samples.plain))[:TEXTURE_LESIONS]
    pairs = [(samples.plain[k], reals.library[partner[k]]) for k in some]
    real = reals.library[reals.row]
    sets = [(samples.plain, real)]
    if of_reals:
        sets = [
            (real[order[::2]], real[order[1::2]]) for order in (rng.permutation(len(real)) for _ in range(HALVINGS))
        ]
    found: dict[str, Any] = {}
    try:
        for name, features, of_pair, root in (
            ("texture", filter_features, texture_distance, 0.5), ("sifid", vgg_features, sifid_vgg, 1.0)
        ):  # fmt: skip
            unit = 1.0 if name == "texture" else 1000.0
            distances = [frechet(_places(one, features), _places(other, features)) ** root for one, other in sets]
            found[f"{name}_pair"] = round(unit * float(np.median([of_pair(*pair) for pair in pairs])), 2)
            found[f"{name}_set"] = round(unit * float(np.mean(distances)), 3)
    except HiResMedSynthError as error:
        click.echo(str(error), err=True)
    return found


def _places(grids: NDArray[np.float32], features: Callable[[NDArray[Any]], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Features at every 7th place of the cuts of many grids."""
    return np.concatenate([features(cuts(grid))[::7] for grid in grids])


def _points(numbers: Any) -> list[float]:
    """5, 50 and 95 %."""
    return [round(float(x), 3) for x in np.percentile(numbers, diversity.PERCENTILES)]


COLUMNS = (
    ("n", "n"), ("AUC features (95 %)", "auc_features"), ("AUC CNN (95 %)", "auc_cnn"),
    ("AUC features, held out", "auc_features_held_out"), ("AUC CNN, held out", "auc_cnn_held_out"),
    ("AUC features, against its sources alone", "auc_features_of_sources"),
    ("the same of deform of these", "auc_deform_of_sources"), ("and against all", "auc_deform_of_same"),
    ("Dice to source", "dice_source"), ("the same, best turn", "dice_source_best"),
    ("Dice to nearest real", "dice_nearest"), ("pairwise Dice", "pairwise_dice"),
    ("correlation to nearest real (95 %, largest)", "copy_correlation"),
    ("volume over the wanted, 5-50-95 %", "volume"),
    ("in one piece", "one_piece"), ("SIFID-VGG x 1000, pair", "sifid_pair"), ("set", "sifid_set"),
    ("texture, HU, pair", "texture_pair"), ("set ", "texture_set"),
    ("rebuilt, RMSE HU", "reconstruction_rmse_hu"),
)  # fmt: skip


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown: a generator a column, so that it stays readable."""
    lines = [f"| | {' | '.join(rows)} |", f"| --- |{' --- |' * len(rows)}"]
    for title, key in COLUMNS:
        cells = [_cell(key, row.get(key)) for row in rows.values()]
        if any(cells):
            lines.append(f"| {title.strip()} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key.startswith("auc"):
        return "{:.2f} ({:.2f}-{:.2f})".format(*value)
    if key.startswith("dice"):
        return "{1:.2f} ({0:.2f}-{2:.2f})".format(*value)
    if key == "copy_correlation":
        return f"{value[2]:.2f}, {value[3]:.2f}"
    return "-".join(f"{x:.2f}" for x in value) if isinstance(value, list) else f"{value:g}"


def load_reals(nodules: Path | None, grids: Path | None) -> tuple[Reals, NDArray[np.float64]]:
    """(the strict nodules and the library, volume of each library nodule)."""
    if grids is not None:
        with np.load(grids, allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    elif nodules is not None:
        from Training.nodule_grids import nodule_grids

        arrays = nodule_grids(nodules)
    else:
        raise click.UsageError("Give --nodules FOLDER or --grids FILE.")
    strict, raw = arrays["strict"], arrays["values"].astype(np.float32)
    # samples are refitted to their boxes: what they are compared with is, too
    library = np.stack([regrid(grid, Deformation.none())[0] for grid in raw])
    reals = Reals(
        values=raw[strict], voxel_mm=arrays["voxel_mm"][strict], patient=arrays["patient_id"][strict],
        held_out=arrays["held_out"][strict], row=np.flatnonzero(strict), library=library,
        library_patient=arrays["patient_id"],
    )  # fmt: skip
    return reals, diversity.volumes_mm3(raw, arrays["voxel_mm"])


@click.command()
@click.option("--nodules", type=click.Path(path_type=Path, exists=True), help="Folder lidc_nodule_voi_hu.")
@click.option("--grids", type=click.Path(path_type=Path, exists=True), help="The npz of Training.nodule_grids.")
@click.option("--generator", "named", multiple=True, metavar="NAME=FILE", help="Samples of a generator; repeatable.")
@click.option("--strength", "strengths", multiple=True, type=float, default=STRENGTHS, help="Of `deform`; repeatable.")
@click.option("--only", multiple=True, help="Names of the rows to measure; repeatable.")
@click.option("--cnn/--no-cnn", default=True, help="With the network as second reader.")
@click.option("--epochs", default=42, show_default=True, help="Of the network, at most.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/lesion_generators"), show_default=True)
def main(
    nodules: Path | None, grids: Path | None, named: tuple[str, ...], strengths: tuple[float, ...],
    only: tuple[str, ...], *, cnn: bool, epochs: int, device: str, seed: int, out: Path,
) -> None:  # fmt: skip
    """Measures generators; each row is kept in OUT as JSON, and the table is made of all rows found there."""
    reals, library_mm3 = load_reals(nodules, grids)
    settings = {"epochs": epochs, "device": device} if cnn else None
    files = dict(text.split("=", 1) for text in named)
    names = [NULL, INTERPOLATION, *(f"deform {strength:g}" for strength in strengths), *files]
    out.mkdir(parents=True, exist_ok=True)
    real = turned(reals.values, seed)
    for name in [name for name in names if not only or name in only]:
        start = time.perf_counter()
        own = Samples(
            seen=real,
            plain=reals.library[reals.row],
            voxel_mm=reals.voxel_mm,
            source=reals.row,
            wanted_mm3=library_mm3[reals.row],
        )
        if name == NULL:
            found = novelty(reals, own, of_reals=True) | read_halves(reals, real, seed, cnn=settings)
        elif name == INTERPOLATION:
            found = {"n": len(real)} | read(reals, reals.values, own, seed, cnn=settings)
        else:
            samples = (
                generated(Path(files[name]), reals, library_mm3, seed)
                if name in files
                else deformed(reals, float(name.split()[1]), seed)
            )
            found = novelty(reals, samples) | read(reals, real, samples, seed, cnn=settings)
            found |= read_among_sources(reals, real, samples, seed)
        found |= {"seed": seed, "seconds": round(time.perf_counter() - start)}
        (out / f"row-{name.replace(' ', '-')}.json").write_text(json.dumps({name: found}, indent=1) + "\n")
        click.echo(f"{name}: {json.dumps(found)}")
    kept: dict[str, Any] = {}
    for path in sorted(out.glob("row-*.json"), key=lambda path: (not path.stem.startswith("row-real"), path.stem)):
        kept |= json.loads(path.read_text())
    (out / "lesion_generators.json").write_text(json.dumps(kept, indent=1) + "\n")
    (out / "lesion_generators.md").write_text(table(kept))
    click.echo(table(kept))


if __name__ == "__main__":
    main()
