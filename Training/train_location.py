"""Trains the local factor of the location prior: true against sham erasures of the same picture.

`python -m Training.train_location --data FOLDER_OF_lidc_nodule_patches --out runs/location`
Input format: Training/location_data.py. The network gives each pixel a number; over the erased sites of a crop a
softmax of these numbers must find the true one, so that exp of the number becomes the density of lesions relative to
even among the places where the lesion's shape fits. That a place was erased tells nothing: all sites are.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.patient_split import FOLDS, chooses, fold_of
from HiResMedSynthLib.placement.location_network import SMOOTH_PX, location_plan, log_likeness
from HiResMedSynthLib.placement.network import PlacementNetwork, build, to_unit
from Training.erased_pairs import ErasedPatch
from Training.erased_store import load_erased
from Training.folder_of_images import identity
from Training.location_crops import SIDE_PX, Crop, draw_crop, draw_crops
from Training.loop import LoopSettings, run
from Training.options import loop_option, run_options, told_plainly
from Training.picture_loop import PictureBatch, PictureLesson
from Training.preset_files import read_preset
from Training.report import write_report

MEASURED_CROPS = 4  # of each patient that chooses the best weights
SHIFT_HU, STRETCH, NOISE_HU = 30.0, 0.05, 20.0
FAR = -1e4  # logit of a site that isn't there


class LocationTask:
    """Crops with several erased sites, of which one is true.

    Args:
        items: erased pictures of the patients to learn from; one patient in six is kept to choose the best weights.
        batch: crops a step.
        visible: the lesion stays in (the preset `paper`'s way, for comparison).
    """

    def __init__(self, items: list[ErasedPatch], *, batch: int, visible: bool = False) -> None:
        self.batch, self.visible = batch, visible
        self.facts = location_plan().facts
        self.sides = [[item for item in items if chooses(item.patch.patient_id) is kept] for kept in (False, True)]
        if not all(self._fixed(side, seed=0, each=1) for side in self.sides):
            raise ReadError(
                f"{len(items)} pictures give too few crops to learn from and to choose by",
                remedy="Give pictures of a dozen patients or more.",
            )

    def constants(self) -> dict[str, float]:
        """The facts of the plan."""
        return self.facts

    def train_batch(self, rng: np.random.Generator) -> PictureBatch:
        """Crops of random patients, turned, mirrored, brightened, with noise."""
        crops: list[Crop] = []
        while len(crops) < self.batch:
            item = self.sides[0][rng.integers(len(self.sides[0]))]
            crop = draw_crop(item, rng, visible=self.visible, symmetry=int(rng.integers(8)))
            crops += [] if crop is None else [crop]
        batch = self._batch(crops)
        count = (self.batch, 1, 1, 1)
        half = (self.facts["high_hu"] - self.facts["low_hu"]) / 2
        picture = batch.picture.numpy()
        picture = picture * rng.uniform(1 - STRETCH, 1 + STRETCH, count) + rng.normal(0, SHIFT_HU / half, count)
        picture = picture + rng.normal(0, 1, picture.shape) * rng.uniform(0, NOISE_HU / half, count)
        return PictureBatch(picture=torch.from_numpy(picture.astype(np.float32)), targets=batch.targets)

    def loss(self, logits: Tensor, batch: PictureBatch) -> Tensor:
        """Cross-entropy of the true site among those of its crop (0 = as good as guessing is log of their number)."""
        scores = site_scores(logits, batch.targets["sites"]).masked_fill(~batch.targets["there"], FAR)
        guess = batch.targets["there"].sum(dim=1).float().log()
        return (
            nn.functional.cross_entropy(
                scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device), reduction="none"
            )
            - guess
        ).mean()

    def measured_batches(self, *, held_out: bool) -> list[PictureBatch]:
        """Fixed crops of the patients of one side, unchanged."""
        crops = self._fixed(self.sides[int(held_out)], seed=3, each=MEASURED_CROPS)[: 4 * 64]
        return [self._batch(crops[first : first + 64]) for first in range(0, len(crops), 64)]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Sixteen crops of patients that choose, the true site ringed, over the network's answer within the lung."""
        crops = self._fixed(self.sides[1], seed=seed, each=1)[:16]
        answers = log_likeness(np.stack([crop.hu for crop in crops]), PlacementNetwork.of(location_plan(), network))
        tiles = []
        for crop, answer in zip(crops, answers, strict=True):
            grey = np.repeat((255 * (to_unit(crop.hu, self.facts) + 1) / 2).astype(np.uint8)[..., np.newaxis], 3, 2)
            centred = np.where(crop.lung, answer - answer[crop.lung].mean() if crop.lung.any() else 0, 0)
            warm = np.stack([np.clip(128 + 80 * centred, 0, 255)] * 3, axis=-1).astype(np.uint8)
            row, column = np.rint(crop.sites[0]).astype(int)
            for picture in (grey, warm):
                picture[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = (255, 0, 0)
            tiles.append(np.concatenate([grey, warm], axis=0))
        return np.concatenate(tiles, axis=1)

    def _fixed(self, items: list[ErasedPatch], *, seed: int, each: int) -> list[Crop]:
        """Up to `each` crops of each picture, the same ones each time."""
        rng = np.random.default_rng(seed)
        crops: list[Crop] = []
        for item in items:
            crops += draw_crops(item, rng, each, visible=self.visible)
        return crops

    def _batch(self, crops: list[Crop]) -> PictureBatch:
        most = max(len(crop.sites) for crop in crops)
        sites = np.zeros((len(crops), most, 2), dtype=np.float32)
        there = np.zeros((len(crops), most), dtype=bool)
        for index, crop in enumerate(crops):
            sites[index, : len(crop.sites)], there[index, : len(crop.sites)] = crop.sites, True
        picture = to_unit(np.stack([crop.hu for crop in crops])[:, np.newaxis], self.facts)
        targets = {"sites": torch.from_numpy(sites), "there": torch.from_numpy(there)}
        return PictureBatch(picture=torch.from_numpy(picture), targets=targets)


def site_scores(logits: Tensor, sites: Tensor) -> Tensor:
    """[B, n]: the smoothed answer [B, 1, rows, columns] at the sites [B, n, 2]."""
    half = SMOOTH_PX // 2
    smooth = nn.functional.avg_pool2d(nn.functional.pad(logits, (half,) * 4, mode="replicate"), SMOOTH_PX, 1)
    grid = (sites.flip(-1) + 0.5) * 2 / SIDE_PX - 1  # torch wants column, row in -1..1
    return nn.functional.grid_sample(smooth, grid[:, :, None], align_corners=False)[:, 0, :, 0]


@click.command(epilog="Example: python -m Training.train_location --data lidc_nodule_patches --out runs/location")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="lidc_nodule_patches, or a labelled folder (docs/annotations.md).",
)
@click.option("--preset", default="location_ct", show_default=True, help="location_ct, location_tiny, or a TOML file.")
@click.option("--fold", type=int, default=0, show_default=True, help="Third of the patients that is left out, 0 to 2.")
@click.option("--visible", is_flag=True, help="Leave the lesions in: for comparison only.")
@click.option("--cache", type=click.Path(path_type=Path), help="Erased pictures (.npz); default: OUT/../erased.npz.")
@loop_option
@run_options
def main(
    data: Path,
    preset: str,
    fold: int,
    visible: bool,
    cache: Path | None,
    out: Path,
    resume: bool,
    time_limit: float,
    steps: int | None,
    batch: int | None,
    loop_changes: tuple[str, ...],
    device: str,
    threads: int,
) -> None:
    """Trains the learned local factor of the location prior."""
    torch.set_num_threads(threads)
    with told_plainly("location_ct.toml"):
        if not 0 <= fold < FOLDS:
            raise SettingsError(f"There is no fold {fold}", remedy=f"Give 0 to {FOLDS - 1}.")
        table = read_preset(preset)
        settings = LoopSettings.changed(table["loop"], changes=loop_changes, steps=steps)
        every, left_out = load_erased(data, cache or out.parent / "erased.npz")
        items = [item for item in every if fold_of(item.patch.patient_id) != fold]
        count = batch or table["batch"]
        task = LocationTask(items, batch=settings.part_of(count), visible=visible)
        plan = location_plan(**table["network"])
        torch.manual_seed(settings.seed)
        network = build(plan)
        weights = sum(parameter.numel() for parameter in network.parameters())
        sides = [len(side) for side in task.sides]
        click.echo(
            f"{weights / 1e6:.2f} M weights, {sides[0]} patients to train on, {sides[1]} to choose by, "
            f"{len(every) - len(items)} left out as fold {fold}; unusable pictures: {left_out}"
        )
        described = {
            "stage": plan.task,
            "plan": plan.to_json(),
            "data_sha256": identity(data, index="patches.csv"),
            "fold": fold,
            "visible": visible,
            "patients": sides[0],
            "seed": settings.seed,
            "batch": count,
        }
        run(
            network, PictureLesson(task), settings, out=out, description=described, resume=resume,
            time_limit_s=time_limit * 60, device=device,
        )  # fmt: skip
        write_report(out, described)


if __name__ == "__main__":
    main()
