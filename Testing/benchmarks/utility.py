"""Are composed lesions of use? A nodule detector trained on real, made and both, tested on real held-out patients.

python -m Testing.benchmarks.utility FOLDER_OF_lidc_nodule_patches --out runs/utility [--seeds 3] [--minutes 20]

Arms at a tenth, a quarter, half and all of the real training patients, the same number of steps each; a seed decides
which patients, the network's first weights and the windows. What is made is kept in OUT/made.npz, each detector's
scores in OUT/ARM-SHARE-SEED.csv: a run that was cut off goes on where it was. One thread.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from HiResMedSynthLib.evaluation.utility import Run, Windows, compare, markdown, read_predictions
from Testing.benchmarks.utility_material import CELLS, Material, material
from Training.detector_data import DetectorPicture, pixels
from Training.erased_store import load_erased
from Training.location_data import LungPatch
from Training.loop import LoopSettings, run
from Training.picture_loop import PictureLesson
from Training.preset_files import read_preset
from Training.train_detector import Detector, DetectorTask, answers, held_out_windows, write_predictions

SHARES = (0.1, 0.25, 0.5, 1.0)
# the first five answer the question; "blank": real, the lesion (or as much of healthy lung) painted over
ARMS: dict[str, tuple[str, ...]] = {
    "real": ("real",),
    "real + composed": ("real", "composed"),
    "composed": ("composed",),
    "real + copy-paste": ("real", "copy-paste"),
    "real + carvemix": ("real", "carvemix"),
    "real + bank-pasted": ("real", "bank-pasted"),
    "copy-paste": ("copy-paste",),
    "carvemix": ("carvemix",),
    "bank-pasted": ("bank-pasted",),
}
BLANK = "blank"


def sources(made: Material, arm: str, share: float, seed: int) -> list[list[LungPatch]]:
    """Pictures of an arm: of so many cells, in the seed's order."""
    cells = np.random.default_rng((seed, 2)).permutation(CELLS)[: max(1, round(share * CELLS))]
    names = [name for cell in cells for name in made.cells[cell]]
    return [
        [made.real[name] for name in names]
        if kind == "real"
        else [picture for name in names for picture in made.made[kind][name]]
        for kind in ARMS.get(arm, ("real",))
    ]


def train(made: Material, arm: str, share: float, seed: int, out: Path, *, steps: int) -> None:
    """Trains one detector and writes its scores."""
    table = read_preset("detector")
    settings = LoopSettings.changed(table["loop"], {"seed": seed + 1, "report_every": steps}, steps=steps)
    without = ("lung",) if arm == BLANK else ("dense", "lung")
    task = DetectorTask(
        sources(made, arm, share, seed), made.choosing, batch=table["batch"], without=without, blank=arm == BLANK
    )
    torch.manual_seed(settings.seed)
    folder = out / "runs" / name_of(arm, share, seed)
    network = run(
        Detector(**table["network"]), PictureLesson(task), settings, out=folder, resume=True,
        description={"arm": arm, "share": share, "seed": seed},
    )  # fmt: skip
    windows = held_out_windows(made.testing)
    scores = answers(network, np.stack([pixels(window, blank=arm == BLANK) for window in windows]))
    write_predictions(out / f"{name_of(arm, share, seed)}.csv", windows, scores)


def name_of(arm: str, share: float, seed: int) -> str:
    """Of a detector's files."""
    return f"{re.sub(r'[^a-z]+', '_', arm)}-{share:g}-{seed}"


def sheet(made: Material, file: Path) -> None:
    """Writes windows of training patients, every so-manyth: lesions real and by each way, then places without one."""
    import cv2

    firsts = [{name: found[0] for name, found in of_way.items() if found} for of_way in made.made.values()]
    rows = []
    for kind, pictures in (
        *(("lesion", pictures) for pictures in (made.real, *firsts)), ("dense", made.real), ("lung", made.real)
    ):  # fmt: skip
        cut = []
        for name in sorted(made.real)[:: len(made.real) // 14]:
            rng = np.random.default_rng(1)
            window = DetectorPicture(patch=pictures[name]).draw(kind, rng) if name in pictures else None
            cut += [] if window is None else [pixels(window)]
        grey = (np.clip((np.stack(cut[:12]) + 1100) / 1300, 0, 1) * 255).astype(np.uint8)
        rows.append(np.hstack([np.pad(cv2.resize(one, None, fx=2, fy=2), 1) for one in grey]))
    cv2.imwrite(str(file), np.vstack(rows) // 4 * 4)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for pictures, runs and scores.")
@click.option("--erased", type=click.Path(path_type=Path), help="Erased pictures (.npz); default: OUT/erased.npz.")
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option(
    "--steps", type=int, default=200, show_default=True, help="Of each detector; another number, another OUT."
)
@click.option("--minutes", type=float, default=float("inf"), help="No new detector is begun after so long.")
@click.option("--arms", type=int, default=len(ARMS), show_default=True, help="So many of the arms, the first ones.")
@click.option("--sheet", "sheet_file", type=click.Path(path_type=Path), help="PNG of windows to write.")
def main(
    folder: Path,
    out: Path,
    erased: Path | None,
    seeds: int,
    steps: int,
    minutes: float,
    arms: int,
    sheet_file: Path | None,
) -> None:
    """Trains what isn't trained yet and prints the table of what is."""
    torch.set_num_threads(1)
    began = time.monotonic()
    made = material(load_erased(folder, erased or out / "erased.npz")[0], out / "made.npz")
    counts = {way: sum(len(pictures) for pictures in found.values()) for way, found in made.made.items()}
    click.echo(f"{len(made.real)} patients to train on, {len(made.testing)} to test on; pictures made: {counts}")
    if sheet_file is not None:
        sheet(made, sheet_file)
    chosen = list(ARMS)[:arms]
    plan = [
        (arm, share, seed)
        for seed in range(seeds)
        for share in SHARES
        for arm in [*chosen, *([BLANK] if share == 1 else [])]
    ]
    for arm, share, seed in plan:
        if not (out / f"{name_of(arm, share, seed)}.csv").is_file() and time.monotonic() - began < 60 * minutes:
            train(made, arm, share, seed, out, steps=steps)
    done = [key for key in plan if (out / f"{name_of(*key)}.csv").is_file()]
    done.sort(key=lambda key: ([*ARMS, BLANK].index(key[0]), key[1], key[2]))
    windows, scores = read_predictions([out / f"{name_of(*key)}.csv" for key in done])
    runs = [Run(arm=a, share=s, seed=k, scores=x) for (a, s, k), x in zip(done, scores, strict=True)]
    click.echo(f"{len(done)} of {len(plan)} detectors\n\n{markdown(compare(windows, runs))}")
    for kind in ("dense", "lung"):
        kept = windows.kinds != kind
        of_these = [replace(one, scores=one.scores[kept]) for one in runs if one.share == 1]
        few = Windows(patients=windows.patients[kept], kinds=windows.kinds[kept])
        click.echo(f"\nwithout the windows called {kind}, all real data\n\n{markdown(compare(few, of_these))}")


if __name__ == "__main__":
    main()
