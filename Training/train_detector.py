"""Trains a small detector of lung nodules on real pictures, made ones, or both; tests it on real held-out patients.

`python -m Training.train_detector --data REAL --synthetic COMPOSED --out runs/both`
Input: a labelled folder (docs/annotations.md), or lidc_nodule_patches. The network answers a window of 28 mm with one
number: how likely it shows a nodule. Training/detector_data.py draws the windows. Is made data of use? Train with
`--data` alone, with `--synthetic` too and with `--only-synthetic`, then let Training/score_detectors.py compare.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.patient_split import chooses, fold_of
from HiResMedSynthLib.placement.location_network import WINDOW_HU
from HiResMedSynthLib.placement.network import to_unit
from Training.checkpoint import best_weights, load_average
from Training.detector_data import SIDE_MM, DetectorPicture, Window, fixed_windows, pixels
from Training.folder_of_images import identity
from Training.location_data import LungPatch, load_patches
from Training.loop import LoopSettings, run
from Training.options import loop_option, run_options, told_plainly
from Training.picture_loop import PictureBatch, PictureLesson
from Training.pictures import tiled
from Training.preset_files import read_preset
from Training.report import write_report
from Training.site_material import is_site_folder, lung_patches

SHIFT_HU, STRETCH, NOISE_HU = 30.0, 0.05, 20.0
MEASURED_EACH, TESTED_EACH, TEST_SEED = 1, 4, 7
AT_ONCE, LOOKED_AT = 256, 32
PREDICTIONS = "predictions.csv"
FACTS = {"low_hu": WINDOW_HU[0], "high_hu": WINDOW_HU[1]}


class Detector(nn.Module):
    """Windows `[n, 1, rows, columns]` in -1..1, of even sides, -> `[n, 1, 1, 1]`, the logit of a nodule."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]  # four pixels to channels: nothing lost, a third of the time
        before = 4
        for depth, width in enumerate(widths):
            layers += _block(before, width, stride=1 if depth == 0 else 2)
            layers += _block(width, width, stride=1) if depth > 0 else []
            before = width
        self.features = nn.Sequential(*layers)
        self.answer = nn.Conv2d(before, 1, 1)

    def forward(self, picture: Tensor) -> Tensor:
        """The logit by the strongest response of each feature, wherever it stands."""
        return torch.as_tensor(self.answer(self.features(picture).amax(dim=(2, 3), keepdim=True)))


def _block(before: int, width: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    ]  # fmt: skip


class DetectorTask:
    """Batches of windows, half with a lesion; every source of pictures gives the same share of them.

    Args:
        sources: pictures to learn from, one list a source (real, synthetic).
        choosing: pictures that choose the best weights.
        batch: windows a step.
        without: kinds of windows without a lesion.
        blank: paint over the point of every window: what can be told by all but the lesion?
    """

    def __init__(
        self,
        sources: Sequence[Sequence[LungPatch]],
        choosing: Sequence[LungPatch],
        *,
        batch: int,
        without: Sequence[str] = ("dense", "lung"),
        blank: bool = False,
    ) -> None:
        self.batch, self.without, self.blank = batch, tuple(without), blank
        self.sources = [_pictures(source) for source in sources]
        self.sides = [[picture for source in self.sources for picture in source], _pictures(choosing)]
        for side in (*self.sources, self.sides[1]):
            if {window.lesion for window in fixed_windows(side[:LOOKED_AT], each=1, seed=0)} != {True, False}:
                raise ReadError(
                    "the pictures give no windows both with a lesion and without one",
                    remedy=f"Give chest CT with {SIDE_MM:.0f} mm or more around each lesion.",
                )

    def constants(self) -> dict[str, float]:
        """The window of grey values."""
        return FACTS

    def train_batch(self, rng: np.random.Generator) -> PictureBatch:
        """Windows of random pictures, turned, mirrored, brightened, with noise."""
        windows: list[Window] = []
        while len(windows) < self.batch:
            source = self.sources[len(windows) // 2 % len(self.sources)]
            kind = "lesion" if len(windows) % 2 == 0 else self.without[int(rng.integers(len(self.without)))]
            window = source[rng.integers(len(source))].draw(kind, rng)
            windows += [] if window is None else [window]
        hu = np.stack([pixels(window, symmetry=int(rng.integers(8)), blank=self.blank) for window in windows])
        count = (self.batch, 1, 1)
        looks = hu * rng.uniform(1 - STRETCH, 1 + STRETCH, count) + rng.normal(0, SHIFT_HU, count)
        looks = looks + rng.normal(0, 1, hu.shape) * rng.uniform(0, NOISE_HU, count)
        return _batch(looks.astype(np.float32), windows)

    def loss(self, logits: Tensor, batch: PictureBatch) -> Tensor:
        """Binary cross-entropy."""
        return nn.functional.binary_cross_entropy_with_logits(logits[:, 0, 0, 0], batch.targets["lesion"])

    def measured_batches(self, *, held_out: bool) -> list[PictureBatch]:
        """Fixed windows of one side, unchanged."""
        windows = fixed_windows(self.sides[int(held_out)][:64], each=MEASURED_EACH, seed=3)
        hu = np.stack([pixels(window, blank=self.blank) for window in windows])
        return [
            _batch(hu[first : first + AT_ONCE], windows[first : first + AT_ONCE])
            for first in range(0, len(windows), AT_ONCE)
        ]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Windows of patients that choose, most likely a nodule first; those with one have a white bar above."""
        windows = fixed_windows(self.sides[1][:12], each=1, seed=seed)[:48]
        hu = np.stack([pixels(window, blank=self.blank) for window in windows])
        grey = (255 * (to_unit(hu, FACTS) + 1) / 2).astype(np.uint8)
        tiles = []
        for index in np.argsort(-answers(network, hu)):
            bar = np.zeros((5, grey.shape[2]), np.uint8)
            bar[:3] = 255 if windows[index].lesion else 0
            tiles.append(np.pad(np.concatenate([bar, grey[index]]), 1))
        return tiled(tiles, across=12)


def _pictures(patches: Sequence[LungPatch]) -> list[DetectorPicture]:
    return [DetectorPicture(patch=patch) for patch in patches]


def _batch(hu: NDArray[np.float32], windows: Sequence[Window]) -> PictureBatch:
    lesion = np.array([window.lesion for window in windows], dtype=np.float32)
    return PictureBatch(
        picture=torch.from_numpy(to_unit(hu[:, np.newaxis], FACTS)), targets={"lesion": torch.from_numpy(lesion)}
    )


def answers(network: nn.Module, hu: NDArray[np.float32]) -> NDArray[np.float64]:
    """The network's logit of each window `[n, rows, columns]` in HU."""
    training, device = network.training, next(network.parameters()).device
    network.eval()
    with torch.no_grad():
        parts = [
            network(torch.from_numpy(to_unit(hu[k : k + AT_ONCE, np.newaxis], FACTS)).to(device))[:, 0, 0, 0]
            for k in range(0, len(hu), AT_ONCE)
        ]
    network.train(training)
    return np.asarray(torch.cat(parts).double().cpu().numpy())


def held_out_windows(patches: Sequence[LungPatch]) -> list[Window]:
    """The windows that every detector is tested on: four with the lesion and sixteen without of each picture."""
    return fixed_windows(_pictures(patches), each=TESTED_EACH, seed=TEST_SEED)


def write_predictions(file: Path, windows: Sequence[Window], scores: NDArray[np.float64]) -> None:
    """Writes patient, number, kind (lesion, dense, lung) and score of each window as CSV; it never leaves the site."""
    aside = file.with_suffix(".part")
    with aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "window", "kind", "score"])
        for number, (window, score) in enumerate(zip(windows, scores, strict=True)):
            writer.writerow([window.picture.patch.patient_id, number, window.kind, f"{score:.5f}"])
    aside.replace(file)


def read_pictures(folder: Path) -> list[LungPatch]:
    """Lung pictures of a labelled folder or of lidc_nodule_patches whose lesion lies in the lung."""
    patches = lung_patches(folder) if is_site_folder(folder) else load_patches(folder)[0]
    return [patch for patch in patches if (patch.lesion & patch.lung).sum() > patch.lesion.sum() / 2]


@click.command(epilog="Example: python -m Training.train_detector --data REAL --synthetic COMPOSED --out runs/both")
@click.option(
    "--data", type=click.Path(path_type=Path), required=True,
    help="Real pictures: a labelled folder (docs/annotations.md) or lidc_nodule_patches.",
)  # fmt: skip
@click.option("--synthetic", type=click.Path(path_type=Path), help="Composed pictures, a labelled folder too.")
@click.option("--only-synthetic", is_flag=True, help="Real pictures choose and test, they don't train.")
@click.option("--share", type=float, default=1.0, show_default=True, help="Of the real training patients, 0 to 1.")
@click.option("--preset", default="detector", show_default=True, help="detector, detector_tiny, or a TOML file.")
@loop_option
@run_options
def main(
    data: Path,
    synthetic: Path | None,
    only_synthetic: bool,
    share: float,
    preset: str,
    out: Path,
    resume: bool,
    time_limit: float,
    steps: int | None,
    batch: int | None,
    loop_changes: tuple[str, ...],
    device: str,
    threads: int,
) -> None:
    """Trains a detector of lung nodules and writes what it says of real patients that it never saw."""
    torch.set_num_threads(threads)
    with told_plainly("detector.toml"):
        if not 0 < share <= 1:
            raise SettingsError(f"There is no share {share:g}", remedy="Give a number above 0, 1 at most.")
        if only_synthetic and synthetic is None:
            raise SettingsError("There is nothing to train on", remedy="Give --synthetic FOLDER, or --data alone.")
        table = read_preset(preset)
        settings = LoopSettings.changed(table["loop"], changes=loop_changes, steps=steps)
        real = read_pictures(data)
        made = [] if synthetic is None else read_pictures(synthetic)
        training, choosing, testing = _split(real)
        training = _part(training, share, seed=settings.seed)
        kept = [patch for patch in made if patch.patient_id not in _ids([*choosing, *testing])]
        sources = [source for source in ([] if only_synthetic else training, kept) if source]
        count = batch or table["batch"]
        task = DetectorTask(sources, choosing, batch=settings.part_of(count))
        torch.manual_seed(settings.seed)
        network = Detector(**table["network"])
        weights = sum(parameter.numel() for parameter in network.parameters())
        click.echo(
            f"{weights / 1e6:.2f} M weights; real patients: {0 if only_synthetic else len(_ids(training))} train, "
            f"{len(_ids(choosing))} choose, {len(_ids(testing))} are tested; {len(kept)} synthetic pictures train, "
            f"{len(made) - len(kept)} left out: their patients choose or are tested"
        )
        if made and not _ids(made) & _ids(real):
            click.echo(
                "No synthetic picture bears the id of a real patient: make sure that none was composed into a patient "
                f"of {PREDICTIONS}, else the test is worth nothing.", err=True,
            )  # fmt: skip
        described = {
            "stage": "detector",
            "data_sha256": identity(data, index="patches.csv"),
            "synthetic_sha256": None if synthetic is None else identity(synthetic, index=None),
            "arm": "synthetic" if only_synthetic else "real" if synthetic is None else "real + synthetic",
            "share": share,
            "patients": len(_ids(training)),
            "seed": settings.seed,
            "batch": count,
            **table["network"],
        }
        run(
            network, PictureLesson(task), settings, out=out, description=described, resume=resume,
            time_limit_s=time_limit * 60, device=device,
        )  # fmt: skip
        network.load_state_dict(load_average(best_weights(out))[0])
        windows = held_out_windows(testing)
        write_predictions(out / PREDICTIONS, windows, answers(network, np.stack([pixels(one) for one in windows])))
        write_report(out, described)


def _split(patches: list[LungPatch]) -> tuple[list[LungPatch], list[LungPatch], list[LungPatch]]:
    """(training, choosing, testing) pictures by the project's rule.

    Raises:
        ReadError: a side is empty.
    """
    testing = [patch for patch in patches if fold_of(patch.patient_id) == 0]
    choosing = [patch for patch in patches if fold_of(patch.patient_id) and chooses(patch.patient_id)]
    training = [patch for patch in patches if fold_of(patch.patient_id) and not chooses(patch.patient_id)]
    if not (training and choosing and testing):
        raise ReadError(
            f"{len(_ids(patches))} real patients can't be split in three",
            remedy="Give two dozen patients or more: a third is tested on, one in six of the others chooses.",
        )
    return training, choosing, testing


def _ids(patches: Sequence[LungPatch]) -> set[str]:
    return {patch.patient_id for patch in patches}


def _part(patches: list[LungPatch], share: float, *, seed: int) -> list[LungPatch]:
    """The pictures of a random share of the patients, the smaller share within the larger one."""
    names = np.random.default_rng(seed).permutation(sorted(_ids(patches)))
    kept = set(names[: max(1, round(share * len(names)))].tolist())
    return [patch for patch in patches if patch.patient_id in kept]


if __name__ == "__main__":
    main()
