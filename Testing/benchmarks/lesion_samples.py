"""Samples of trained generators in the form that `lesion_generators` measures.

python -m Testing.benchmarks.lesion_samples learned MODEL --grids nodules.npz --out learned.npz
python -m Testing.benchmarks.lesion_samples singan models.zip --grids nodules.npz --out singan.npz

`learned` draws for the properties of every strict nodule; `singan` some of each bank lesion's network that is a nodule
of the grids file (by patient and diameter).
"""

from __future__ import annotations

import math
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.choices import LESION_TYPES
from HiResMedSynthLib.flow import sampling_times
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.learned import encode_properties, is_whole, load_learned
from HiResMedSynthLib.lesion.lesion_grid import to_grid
from HiResMedSynthLib.lesion.singan import SinGan

BATCH, TRIES = 6, 4
SAME_MM = 0.2  # two nodules of one patient differ by more


@click.group(help=__doc__)
def main() -> None:
    torch.set_num_threads(1)


def strict(grids: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the strict nodules, and their rows in the file."""
    with np.load(grids, allow_pickle=False) as packed:
        chosen = np.flatnonzero(packed["strict"])
        return {"row": chosen, **{name: packed[name][chosen] for name in packed.files if name != "values"}}


@main.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--grids", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=int, help="Heun's steps in place of the model's own way.")
@click.option("--jump", default=1.0, show_default=True, help="Time from which the last step goes to the data at once.")
@click.option("--sides", type=click.Choice(("all", "learnt", "held-out")), default="all", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--seed", default=1, show_default=True)
def learned(
    model: Path, grids: Path, out: Path, steps: int | None, jump: float, sides: str, device: str, seed: int
) -> None:
    """Draws one sample for each strict nodule's properties; one in pieces is drawn again, as the product does."""
    generator, nodules = load_learned(model), strict(grids)
    keep = np.ones(len(nodules["row"]), bool) if sides == "all" else nodules["held_out"] == (sides == "held-out")
    chosen = np.flatnonzero(keep)
    wanted = np.stack([
        encode_properties(
            LESION_TYPES[int(nodules["type"][k])], float(nodules["diameter_mm"][k]),
            spiculation=float(nodules["spiculation"][k]), lobulation=float(nodules["lobulation"][k]),
            noise_hu=max(float(nodules["noise_hu"][k]), 1.0),
        )
        for k in chosen
    ])  # fmt: skip
    values, rng, pieces = np.zeros((len(chosen), 2, 32, 32, 32), np.float32), np.random.default_rng(seed), 0
    times = None if steps is None else sampling_times(steps, jump=jump)
    left = np.arange(len(chosen))
    for _ in range(TRIES):
        for part in np.array_split(left, max(math.ceil(len(left) / BATCH), 1)):
            values[part] = generator.values(wanted[part], rng=rng, times=times, device=device)
        left = np.array([k for k in left if not is_whole(values[k])], dtype=int)
        pieces += len(left)
        if len(left) == 0:
            break
    diameter = nodules["diameter_mm"][chosen].astype(np.float64)
    voxel_mm = diameter / np.cbrt(6 * values[:, 1].sum(axis=(1, 2, 3)) / math.pi)
    write(out, values, voxel_mm, np.full(len(chosen), -1), diameter_mm=diameter)
    click.echo(f"{out}: {len(values)} samples, {pieces} drawn again for lying in pieces")


@main.command()
@click.argument("models", type=click.Path(path_type=Path, exists=True))
@click.option("--grids", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--each", default=2, show_default=True, help="Samples of each lesion.")
@click.option("--seed", default=1, show_default=True)
def singan(models: Path, grids: Path, out: Path, each: int, seed: int) -> None:
    """Draws samples of the networks in a zip of models that `singan_gpu bank` left."""
    bank, nodules = load_bank(), strict(grids)
    values, voxels, sources, rebuilt, rebuilt_of, skipped = [], [], [], [], [], []
    with zipfile.ZipFile(models) as packed, tempfile.TemporaryDirectory() as folder:
        for name in sorted(Path(entry).stem for entry in packed.namelist()):
            card = bank.cards[name]
            same = (nodules["patient_id"] == card.patient_id) & (
                np.abs(nodules["diameter_mm"] - card.diameter_mm) < SAME_MM
            )
            if same.sum() != 1:
                skipped.append(name)
                continue
            row = int(nodules["row"][same][0])
            model = SinGan.load(Path(packed.extract(f"{name}.safetensors", folder)))
            rng = np.random.default_rng([seed, row])
            values += [model.sample(rng) for _ in range(each)]
            voxels += [to_grid(bank.lesion(name)).voxel_mm] * each
            sources += [row] * each
            rebuilt.append(model.reconstruct())
            rebuilt_of.append(row)
    write(
        out, np.stack(values), np.array(voxels), np.array(sources), reconstruction=np.stack(rebuilt).astype(np.float16),
        reconstruction_source=np.array(rebuilt_of),
    )  # fmt: skip
    click.echo(f"{out}: {len(values)} samples of {len(rebuilt)} lesions; no nodule of the file: {', '.join(skipped)}")


def write(out: Path, values: NDArray[Any], voxel_mm: NDArray[Any], source: NDArray[Any], **more: NDArray[Any]) -> None:
    """Writes the file, rounded as a bank entry is."""
    alpha = np.round(255 * values[:, 1]) / 255
    values = np.stack([np.where(alpha > 0, np.round(1000 * values[:, 0]) / 1000, 0), alpha], axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out, values=values.astype(np.float16), voxel_mm=voxel_mm.astype(np.float32), source=source, **more
    )


if __name__ == "__main__":
    main()
