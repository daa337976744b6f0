"""Trains a baseline on films and draws some of it: `python -m Training.baselines ddm --data FOLDER --out runs/ddm`.

`--data` is a folder as Training/film_data.py describes it, `--films` a file as Training/vqgan_data.py does. OUT holds
the run, `samples.npz` (every film that was drawn, seeds 1, 2, ..., none left out) and `samples.png`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image

from HiResMedSynthLib.errors import SettingsError
from Training.baselines import singan_film, vqgan_film
from Training.baselines.ddm import Ddm, DdmShape
from Training.baselines.fastgan import FastGan, FastGanShape
from Training.baselines.films import DeviceFilms, hash_of
from Training.baselines.loop import Baseline, LoopSettings, train
from Training.baselines.samples import Samples, sheet_of
from Training.baselines.styleswin import StyleSwin, StyleSwinShape
from Training.options import cache_option, told_plainly
from Training.pictures import grey8
from Training.preset_files import read_preset
from Training.vqgan_data import FilmTensors, load_data

NETWORKS: dict[str, tuple[Any, Any]] = {
    "ddm": (Ddm, DdmShape),
    "fastgan": (FastGan, FastGanShape),
    "styleswin": (StyleSwin, StyleSwinShape),
}
NAMES = (*NETWORKS, "singan_film", "vqgan")


@click.command(help=__doc__)
@click.argument("name", type=click.Choice(NAMES))
@click.option("--data", type=click.Path(path_type=Path), help="Folder of films.")
@click.option("--films", type=click.Path(path_type=Path), help="Prepared films, .npz or .npy.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--preset", default="baselines", show_default=True, help="baselines, baselines_tiny, or a TOML file.")
@click.option("--size", type=int, help="Side in pixels at which films are learned and made; default: the preset's.")
@click.option("--samples", type=click.IntRange(1), default=64, show_default=True, help="Films drawn at the end.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in OUT.")
@click.option(
    "--time-limit",
    type=float,
    default=math.inf,
    help="Minutes until all is done, drawing too.",
)
@click.option("--steps", type=int, help="Steps in all, in place of the preset's.")
@click.option("--batch", type=int, help="Films a step, in place of the preset's.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), help="Default: bfloat16 on a GPU.")
@click.option("--graph/--no-graph", default=True, show_default=True, help="On a GPU: a step as one CUDA graph.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
@cache_option
def main(
    name: str,
    data: Path | None,
    films: Path | None,
    out: Path,
    preset: str,
    size: int | None,
    samples: int,
    device: str,
    threads: int,
    cache: Path | None,
    precision: str | None,
    **options: Any,
) -> None:
    """Trains and draws."""
    torch.set_num_threads(threads)
    with told_plainly("baselines.toml"):
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SettingsError("PyTorch finds no GPU here", remedy="Leave --device out.")
        tables = read_preset(preset)
        side = size or int(tables[name]["size"])
        canvas = {key: tables["data"][key] for key in ("canvas_px", "spacing_mm")}
        tensors = load_data(data, films, cache or out.parent / "cache", size=side, canvas=canvas)
        seeds = list(range(1, samples + 1))
        drawn, facts = made(
            name, tables[name], tensors, seeds, out=out, device=device,
            precision=precision or ("float32" if device == "cpu" else "bfloat16"), **options,
        )  # fmt: skip
        facts |= {
            "name": name,
            "size": side,
            "films": len(tensors.side(held_out=False)),
            "seed": options["seed"],
            "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        }
        Samples(films=grey8(drawn[:, 0]), seeds=torch.tensor(seeds).numpy(), facts=facts).save(out / "samples.npz")
        Image.fromarray(sheet_of(drawn[:16])).save(out / "samples.png")
        click.echo(" ".join(f"{key}={value}" for key, value in facts.items()))


def made(
    name: str,
    table: dict[str, Any],
    films: FilmTensors,
    seeds: list[int],
    *,
    out: Path,
    device: str,
    precision: str,
    resume: bool,
    time_limit: float,
    steps: int | None,
    batch: int | None,
    seed: int,
    graph: bool,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """(films [n, 1, S, S] in about -1..1 by seeds, facts of the run), trained first.

    Raises:
        SettingsError: the preset's numbers can't be, or `out` holds another run.
    """
    changes = {key: value for key, value in (("steps", steps), ("batch", batch)) if value is not None}
    time_limit_s = 60 * time_limit
    try:
        if name == "singan_film":
            shape = singan_film.SinganFilmShape(
                **{**table["network"], **({} if steps is None else {"iterations": steps})}
            )
            return singan_film.make(
                films, shape, seeds, out=out, seed=seed, resume=resume, device=device, graph=graph,
                time_limit_s=time_limit_s * (1 - table["draw_share"]),
            )  # fmt: skip
        if name == "vqgan":
            settings = vqgan_film.VqganFilmSettings.of(
                {**table, "loop": {**table["loop"], **changes}}, size=films.size, seed=seed
            )
            return vqgan_film.make(
                films, settings, seeds, out=out, data_sha256=hash_of(films), resume=resume, device=device,
                time_limit_s=time_limit_s * (1 - table["draw_share"]),
            )  # fmt: skip
        baseline_class, shape_class = NETWORKS[name]
        plain = {key: tuple(value) if isinstance(value, list) else value for key, value in table["network"].items()}
        loop = LoopSettings(**{**table["loop"], **changes, "seed": seed, "graph": graph})
        torch.manual_seed(seed)
        baseline: Baseline = baseline_class(shape_class(**plain), size=films.size, device=device, precision=precision)
    except TypeError as problem:
        raise SettingsError(f"The preset's [{name}] can't be: {problem}", remedy="See baselines.toml.") from None
    weights = {key: vqgan_film.weights_of(part.network) for key, part in baseline.parts.items()}
    click.echo(f"{name} at {films.size} px: " + ", ".join(f"{key} {w / 1e6:.2f} M" for key, w in weights.items()))
    described = {"stage": name, "data_sha256": hash_of(films), "seed": seed, "batch": loop.batch, "network": plain}
    generator, facts = train(
        baseline, DeviceFilms(films, device), loop, out=out, description=described, resume=resume,
        time_limit_s=time_limit_s,
    )  # fmt: skip
    return baseline.draw(generator, seeds), {"weights": weights, **facts}


if __name__ == "__main__":
    main()
