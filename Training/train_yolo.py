"""Trains the paper's detector as a location prior: YOLOv11n (ultralytics, AGPL-3.0), on visible or on erased lesions.

`python -m Training.train_yolo --data FOLDER_OF_lidc_nodule_patches --out runs/yolo`, in an environment with the extra
`yolo`. The default is the paper's way: lesions stay visible. `--erased` boxes the place of the erased lesion among
shams. Crops are written as PNG, the weights as safetensors from memory; no .pt file is written or read.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.patient_split import FOLDS, chooses, fold_of
from HiResMedSynthLib.placement.location_network import PIXEL_MM, location_plan
from HiResMedSynthLib.placement.network import ENTRY, KIND, VERSION, to_unit
from HiResMedSynthLib.placement.yolo import ENLARGED, PLAN, TASK, prepare_ultralytics
from HiResMedSynthLib.weights import Card, check_name, write_model
from Training.erased_pairs import ErasedPatch
from Training.erased_store import load_erased
from Training.location_crops import SIDE_PX, Crop, draw_crops
from Training.options import device_option, told_plainly

SMALLEST_BOX_MM = 4.0
SIDE = SIDE_PX * ENLARGED
UNCHANGED = {
    "mosaic": 0.0, "mixup": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.1, "erasing": 0.0, "scale": 0.1,
    "translate": 0.0, "degrees": 0.0, "fliplr": 0.5, "flipud": 0.5, "auto_augment": None,
}  # fmt: skip


def write_crops(items: list[ErasedPatch], folder: Path, *, crops: int, visible: bool, seed: int) -> int:
    """Writes that many crops of each picture and their boxes in YOLO's layout; how many there are."""
    rng = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    written = 0
    for index, item in enumerate(items):  # names by number: an id may be any text, and stand for several pictures
        size_mm = max(SMALLEST_BOX_MM, 2 * float(np.sqrt(item.patch.lesion.sum() / np.pi)) * item.patch.spacing_mm)
        for number, crop in enumerate(draw_crops(item, rng, crops, visible=visible, turned=True)):
            stem = f"{index:05d}-{number:02d}"
            _picture(crop).save(folder / "images" / f"{stem}.png")
            row, column = (crop.sites[0] + 0.5) / SIDE_PX
            share = size_mm / PIXEL_MM / SIDE_PX
            line = f"0 {column:.5f} {row:.5f} {share:.5f} {share:.5f}\n"
            (folder / "labels" / f"{stem}.txt").write_text(line, encoding="ascii")
            written += 1
    return written


def _picture(crop: Crop) -> Image.Image:
    grey = np.rint(255 * (to_unit(crop.hu, location_plan().facts) + 1) / 2).astype(np.uint8)
    return Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def train_detector(
    folder: Path, out: Path, *, epochs: int, batch: int, seed: int, device: str, time_limit_s: float = math.inf
) -> dict[str, Any]:
    """State dict of the moving average after training on the crops in `folder`, after the epochs or the time."""
    os.environ["YOLO_CONFIG_DIR"] = str(out.resolve())
    prepare_ultralytics()
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Quiet(DetectionTrainer):
        """The package's trainer, which pickles nothing."""

        def save_model(self) -> None:
            """Nothing is saved."""

        def final_eval(self) -> None:
            """Nothing is loaded."""

    data = out / "data.yaml"
    data.write_text(
        f"path: {json.dumps(str(folder.resolve()))}\ntrain: train/images\nval: val/images\nnames:\n  0: lesion\n",
        encoding="utf-8",
    )
    trainer = Quiet(
        overrides={
            "model": PLAN, "data": str(data), "imgsz": SIDE, "epochs": epochs, "batch": batch, "seed": seed,
            "workers": 0, "plots": False, "amp": False, "val": False, "pretrained": False, "device": device,
            "project": str(out.resolve()), "name": "ultralytics", "exist_ok": True, "verbose": False, **UNCHANGED,
        }
    )  # fmt: skip
    began = time.monotonic()

    def stop_in_time(trainer: Any) -> None:
        trainer.stop = trainer.stop or time.monotonic() - began > time_limit_s

    trainer.add_callback("on_train_batch_end", stop_in_time)
    trainer.train()
    return {name: value.contiguous().cpu() for name, value in trainer.ema.ema.state_dict().items()}


@click.command(epilog="Example: python -m Training.train_yolo --data lidc_nodule_patches --out runs/yolo --erased")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder lidc_nodule_patches.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--erased", is_flag=True, help="Box the places of erased lesions, not visible ones.")
@click.option("--name", default="yolo-ct", show_default=True, help="Of the model, for --prior.")
@click.option("--fold", type=int, default=0, show_default=True, help="Third of the patients that is left out, 0 to 2.")
@click.option("--crops", type=int, default=8, show_default=True, help="Of each patient.")
@click.option("--epochs", type=int, default=12, show_default=True)
@click.option("--batch", type=int, default=32, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--time-limit", type=float, default=math.inf, help="Minutes; ends there, or after the epochs.")
@click.option("--cache", type=click.Path(path_type=Path), help="Erased pictures (.npz); default: OUT/../erased.npz.")
@device_option
@click.option("--threads", type=int, default=1, show_default=True)
@told_plainly()
def main(
    data: Path, out: Path, erased: bool, name: str, fold: int, crops: int, epochs: int, batch: int, seed: int,
    time_limit: float, cache: Path | None, device: str, threads: int,
) -> None:  # fmt: skip
    """Trains a YOLOv11n detector of lesions, or of places of erased lesions.

    It has no --resume: ultralytics goes on from a pickled .pt file alone, and no pickle is written or read here. Nor
    has it presets: the network and its loop are the package's own.
    """
    torch.set_num_threads(threads)
    check_name(name)
    if not 0 <= fold < FOLDS:
        raise SettingsError(f"There is no fold {fold}", remedy=f"Give 0 to {FOLDS - 1}.")
    if (out / "crops").exists():
        # crops of another fold would teach of patients that are left out now
        raise SettingsError("This folder holds a run", where=out, remedy="Give another folder.")
    every, _ = load_erased(data, cache or out.parent / "erased.npz")
    items = [item for item in every if fold_of(item.patch.patient_id) != fold]
    out.mkdir(parents=True, exist_ok=True)
    for part, kept in (("train", False), ("val", True)):
        side = [item for item in items if chooses(item.patch.patient_id) is kept]
        count = write_crops(side, out / "crops" / part, crops=crops, visible=not erased, seed=seed)
        click.echo(f"{part}: {count} crops of {len(side)} patients")
        if not count:
            raise SettingsError("There is no crop to train on or to choose by", remedy="Give more patients.")
    state = train_detector(
        out / "crops", out, epochs=epochs, batch=batch, seed=seed, device=device, time_limit_s=time_limit * 60
    )
    patients = len({item.patch.patient_id for item in items})
    write_model(
        out / "best.safetensors",
        {key: value.half().numpy() if value.is_floating_point() else value.numpy() for key, value in state.items()},
        Card(
            name=name, kind=KIND, seed=seed, licence="AGPL-3.0 (ultralytics)", attribution="see the data",
            data=f"{patients} patients, {'erased' if erased else 'visible'} lesions, fold {fold} left out",
            limits="not measured: see docs/results/location_prior.md for what such detectors are worth",
            details={"task": TASK},
        ),
        metadata={ENTRY: json.dumps({"version": VERSION, "task": TASK})},
    )  # fmt: skip
    click.echo(f"{out / 'best.safetensors'}: last averaged weights, AGPL-3.0; --prior {name} once added")


if __name__ == "__main__":
    main()
