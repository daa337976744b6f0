"""A picture of each generator: real nodules beside 15 samples, none chosen.

`python -m Testing.benchmarks.lesion_sheets --singan FOLDER --learned MODEL --out PICTURE.jpg`: FOLDER/LESION holds what
`singan_train` left of each lesion. From left to right `deform`, `singan`, `learned`; a block a lesion, its first column
the real one (to `learned` it tells only type, diameter and spiculation); rows: axial, coronal, sagittal cut in the lung
window, then in the soft-tissue window.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.lesion.bank import Bank, load_bank
from HiResMedSynthLib.lesion.generators import Deform, Wish
from HiResMedSynthLib.lesion.learned import USUAL_SPICULATION, load_learned
from HiResMedSynthLib.lesion.lesion_grid import LUNG_HU, UNIT_HU, to_grid
from HiResMedSynthLib.lesion.samples import draw_sample
from HiResMedSynthLib.lesion.sheet import LUNG, SOFT_TISSUE
from HiResMedSynthLib.lesion.singan import SinGan

LESIONS = (
    "calcified-09mm-a", "ground-glass-10mm-a", "part-solid-11mm-a", "solid-09mm-d", "solid-13mm-b", "solid-17mm-a"
)  # fmt: skip
SAMPLES, GAP = 15, 4
Grids = NDArray[np.float32]
Draw = Callable[[str], Grids]
"""Name of a bank lesion -> samples [15, 2, 32, 32, 32]."""


def deform(bank: Bank, seed: int) -> Draw:
    """Samples of the plain generator."""

    def drawn(name: str) -> Grids:
        card = bank.cards[name]
        wish = Wish(type=card.type, diameter_mm=card.diameter_mm, entry=name)
        streams = np.random.default_rng(seed).spawn(SAMPLES)
        size = (card.diameter_mm, card.diameter_mm)
        return np.stack([draw_sample(Deform(), wish, bank, rng, size_mm=size).grid.values for rng in streams])

    return drawn


def singan(folder: Path, seed: int) -> Draw:
    """Samples of the network of each lesion."""

    def drawn(name: str) -> Grids:
        network = SinGan.load(folder / name / "singan-0.safetensors")
        return np.stack([network.sample(rng) for rng in np.random.default_rng(seed).spawn(SAMPLES)])

    return drawn


def learned(model: Path, bank: Bank, seed: int) -> Draw:
    """Samples of the network over all lesions, of each one's type, diameter and spiculation."""
    generator = load_learned(model)

    def drawn(name: str) -> Grids:
        card = bank.cards[name]
        lesions = generator.sample(
            card.type, card.diameter_mm, rng=np.random.default_rng(seed), count=SAMPLES,
            spiculation=card.spiculation or USUAL_SPICULATION,
        )  # fmt: skip
        return np.stack([to_grid(lesion).values for lesion in lesions])

    return drawn


def block(grids: Grids) -> NDArray[np.uint8]:
    """`[6 x size, n x size]`: a column for each of `grids` [n, 2, size, size, size]; rows as the picture has them."""
    hu = LUNG_HU + UNIT_HU * grids[:, 0]
    middle = hu.shape[1] // 2
    cuts = np.concatenate([hu.take(middle, axis) for axis in (1, 2, 3)], axis=1)  # [n, 3 size, size]
    both = np.concatenate([window.to_unit(cuts.astype(np.float32)) for window in (LUNG, SOFT_TISSUE)], axis=1)
    return np.asarray(np.concatenate(list(both), axis=1) * 255, dtype=np.uint8)


def sheet(bank: Bank, ways: list[Draw], names: tuple[str, ...] = LESIONS) -> Image.Image:
    """The picture."""
    columns = []
    for way in ways:
        blocks = [block(np.concatenate([to_grid(bank.lesion(name)).values[None], way(name)])) for name in names]
        columns.append(np.concatenate([np.pad(one, ((0, GAP), (0, GAP)), constant_values=255) for one in blocks]))
    return Image.fromarray(np.concatenate(columns, axis=1))


@click.command(help=__doc__)
@click.option("--singan", "folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--learned", "model", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--quality", default=70, show_default=True, help="Of the JPEG.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(folder: Path, model: Path, seed: int, quality: int, out: Path) -> None:
    torch.set_num_threads(1)
    bank = load_bank()
    sheet(bank, [deform(bank, seed), singan(folder, seed), learned(model, bank, seed)]).save(out, quality=quality)


if __name__ == "__main__":
    main()
