"""`better` against `vqgan`: seconds of training until held-out films are rebuilt equally well from codes of equal size.

`python -m Testing.benchmarks.equal_quality train --data FOLDER --device cuda --time-limit 300 --out DIR`
`python -m Testing.benchmarks.equal_quality measure DIR`

Every arm codes a film of 256 px in 16 x 16 codes of 10 bits and sees the same films, changed alike. `better` is the
cascade's stages "film" and "detail-256", half of its time each, as in its preset. `vqgan` is the preset of that name
(plain residual blocks, Table 1's rate), `vqgan-10x` the same at ten times the rate. In both dead codes are revived, and
L_p is ST-LPIPS on AlexNet where that package is there; the adversary, which begins at step 10,000, is left out. Rates
are constant, averaged weights are measured. The arms take turns of a second in one process, each step one CUDA graph,
and each has a clock of its own: whatever else the machine does hits all alike.

The measure, taken by `measure`, is the mean over held-out films of L1 (values -1..1, in the field) + ST-LPIPS (VGG). A
flow draws one of the films that fit the codes, a VQGAN their mean: L1 favours the VQGAN.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from HiResMedSynthLib.background.cascade import REDUCTION
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.st_lpips import st_lpips
from Testing.benchmarks.curve_plot import Line, draw_panels
from Testing.benchmarks.equal_quality_arms import Arm, Better, Fields, Films, PlainVqgan
from Training.film_data import FilmSet, load_films
from Training.film_stages import CoarseFilm, make_stage
from Training.preset_files import read_preset
from Training.train_vqgan import read_vqgan_preset

SHOWN, MARKS, FIRST_S = 8, 7, 2.0  # held-out films; measurements of each arm, from this second on
TURN_S = 1.0
COLOURS = {"better": "#c30", "vqgan": "#06c", "vqgan-10x": "#083"}


def smaller_films(preset: dict[str, Any]) -> dict[str, Any]:
    """The preset for films that are read at twice the size that its stage "detail-256" makes."""
    data, film = preset["data"], preset["film"]
    canvas = 2 * REDUCTION * data["canvas_px"] // film["reduction"]
    spacing_mm = data["spacing_mm"] * data["canvas_px"] / canvas
    return preset | {
        "data": {"canvas_px": canvas, "spacing_mm": spacing_mm},
        "film": film | {"reduction": 2 * REDUCTION},
        "detail-256": preset["detail-256"] | {"step": 2},
    }


def held_out_films(films: FilmSet, count: int) -> tuple[Films, Fields]:
    """The first held-out films and their fields, at half the size of the set's."""
    chosen = films.side(held_out=True)[:count]
    side = films.pixels.shape[-1] // 2
    pixels = films.pixels[chosen].reshape(len(chosen), side, 2, side, 2).mean(axis=(2, 4))
    return pixels.astype(np.float32), films.masks()[chosen][:, ::2, ::2]


def _alex() -> nn.Module | None:
    try:
        network: nn.Module = st_lpips("alex")
    except HiResMedSynthError:
        return None
    return network


@click.group(epilog="Example: python -m Testing.benchmarks.equal_quality train --data films --out runs/equal")
def main() -> None:
    """Measures how long two ways of coding films train until they rebuild equally well."""


@main.command("train")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="As Training/film_data.py.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--cache", type=click.Path(path_type=Path), help="Of prepared films; default: a temporary folder.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--time-limit", type=float, default=300.0, show_default=True, help="Seconds in all.")
@click.option("--arms", default=",".join(COLOURS), show_default=True)
@click.option("--batch", default=16, show_default=True, help="Films of a step of `better`.")
@click.option("--better", "better_preset", default="better", show_default=True)
@click.option("--vqgan", "vqgan_preset", default="vqgan", show_default=True)
def train(data: Path, out: Path, cache: Path | None, device: str, time_limit: float, arms: str, batch: int,
          better_preset: str, vqgan_preset: str) -> None:  # fmt: skip
    """Trains the arms in turns; writes OUT/train.json, films.npz, sheet.png."""
    began = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    preset = smaller_films(read_preset(better_preset))
    with tempfile.TemporaryDirectory() as folder:
        films = load_films(data, cache or Path(folder), **preset["data"])
    preset["film"]["batch"] = batch
    perceptual = _alex()
    click.echo(f"{len(films.films)} films; L_p {'absent' if perceptual is None else 'ST-LPIPS (Alex)'}")
    running: dict[str, Arm] = {}
    for name in arms.split(","):
        if name == "better":
            running[name] = Better(films, preset, device=device)
            continue
        own = {"film": preset["film"] | {"batch": read_vqgan_preset(vqgan_preset)["loop"]["batch"]}}
        stage = make_stage("film", own, films, device=device)
        assert isinstance(stage, CoarseFilm)
        placed = None if perceptual is None else perceptual.to(device)
        running[name] = PlainVqgan(
            stage, vqgan_preset, faster=10 if name == "vqgan-10x" else 1, perceptual=placed, device=device
        )
        click.echo(f"{name} is set up after {time.perf_counter() - began:.0f} s")
    shown, fields = held_out_films(films, SHOWN)
    left = time_limit - (time.perf_counter() - began)
    marks = np.geomspace(FIRST_S, max(0.8 * left / len(running), 2 * FIRST_S), MARKS)
    clocks, told = dict.fromkeys(running, 0.0), dict.fromkeys(running, 0)
    kept: dict[str, NDArray[Any]] = {"real": _grey(shown), "fields": fields}
    entries: list[dict[str, Any]] = []
    while time.perf_counter() - began < time_limit and any(count < MARKS for count in told.values()):
        for name, arm in running.items():
            if told[name] == MARKS:
                continue
            clocks[name] += arm.train(min(TURN_S, max(marks[told[name]] - clocks[name], 0.01)))
            if clocks[name] < marks[told[name]]:
                continue
            made = arm.rebuild(shown, fields)
            error = float(np.abs(made - shown)[fields].mean())
            entries.append({"arm": name, "mark": told[name], "seconds": clocks[name], "l1": error, **arm.facts()})
            kept[f"{name} {told[name]}"] = _grey(made)
            told[name] += 1
            click.echo(json.dumps(entries[-1]))
    machine = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    record = {"machine": machine, "torch": torch.__version__, "batch": batch, "perceptual": perceptual is not None,
              "entries": entries}  # fmt: skip
    (out / "train.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    np.savez_compressed(out / "films.npz", **kept)  # type: ignore[arg-type]
    rows = [kept["real"], *(kept[f"{name} {count - 1}"] for name, count in told.items() if count)]
    Image.fromarray(np.concatenate([np.concatenate([*row], axis=1) for row in rows])).save(out / "sheet.png")


@main.command("measure")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def measure(folder: Path) -> None:
    """Measures what `train` left in FOLDER; writes equal_quality.json, .md and curves.png there."""
    record = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    with np.load(folder / "films.npz", allow_pickle=False) as kept:
        arrays = dict(kept)
    real, fields, network = arrays["real"] / 127.5 - 1, arrays["fields"], st_lpips()
    for entry in record["entries"]:
        made = arrays[f"{entry['arm']} {entry['mark']}"] / 127.5 - 1
        entry["l1"] = float(np.abs(made - real)[fields].mean())
        with torch.no_grad():
            pairs = (
                torch.from_numpy((part * fields).astype(np.float32))[:, None].expand(-1, 3, -1, -1)
                for part in (made, real)
            )
            entry["st_lpips"] = float(network(*pairs).mean())
        entry["both"] = entry["l1"] + entry["st_lpips"]
    table = _table(record["entries"])
    (folder / "equal_quality.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    (folder / "equal_quality.md").write_text(table, encoding="utf-8")
    draw_panels(_curves(record["entries"])).save(folder / "curves.png")
    click.echo(table)


def reached(entries: Sequence[dict[str, Any]], arm: str, bound: float) -> float | None:
    """Seconds at which an arm's measure first falls to a bound, on a straight line between two measurements."""
    own = [(entry["seconds"], entry["both"]) for entry in entries if entry["arm"] == arm]
    before = None
    for seconds, value in own:
        if value <= bound:
            if before is None:
                return float(seconds)
            return float(before[0] + (seconds - before[0]) * (before[1] - bound) / (before[1] - value))
        before = (seconds, value)
    return None


def _table(entries: Sequence[dict[str, Any]]) -> str:
    lines = ["| arm | seconds | steps | L1 | ST-LPIPS | both |", "| --- " * 6 + "|"]
    for entry in entries:
        steps = " + ".join(f"{value:.0f}" for key, value in entry.items() if key.startswith("steps"))
        lines.append(
            f"| {entry['arm']} | {entry['seconds']:.1f} | {steps} | {entry['l1']:.4f} | {entry['st_lpips']:.4f} "
            f"| {entry['both']:.4f} |"
        )
    arms = list(dict.fromkeys(entry["arm"] for entry in entries))
    others = [arm for arm in arms if arm != "better"]
    lines += ["", "| quality of | reached after, s | by `better` after, s | ratio |", "| --- " * 4 + "|"]
    for arm in others:
        for entry in (entry for entry in entries if entry["arm"] == arm):
            own, other = reached(entries, arm, entry["both"]), reached(entries, "better", entry["both"])
            ratio = "-" if other is None or not own else f"{other / own:.2f}"
            lines.append(
                f"| {arm} at {entry['seconds']:.1f} s ({entry['both']:.3f}) | {own:.1f} "
                f"| {'never' if other is None else f'{other:.1f}'} | {ratio} |"
            )
    return "\n".join(lines) + "\n"


def _curves(entries: Sequence[dict[str, Any]]) -> dict[str, list[Line]]:
    panels = {}
    for key, title in (("both", "L1 + ST-LPIPS"), ("l1", "L1"), ("st_lpips", "ST-LPIPS")):
        lines = []
        for arm, colour in COLOURS.items():
            own = [entry for entry in entries if entry["arm"] == arm]
            lines.append(
                Line(x=[e["seconds"] for e in own], y=[e[key] for e in own], colour=colour, name=arm if own else "")
            )
        panels[f"held-out {title} against seconds"] = lines
    return panels


def _grey(films: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.rint((np.clip(films, -1, 1) + 1) * 127.5), dtype=np.uint8)


if __name__ == "__main__":
    main()
