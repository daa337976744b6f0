"""A VQGAN run from its start or its checkpoint to its end.

A run's folder holds `checkpoint.safetensors`, `log.jsonl` (a line per report), `sheet-*.png`, and at its end
`vqgan.safetensors` (averaged weights).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from HiResMedSynthLib.background.quantiser import perplexity, usage
from HiResMedSynthLib.background.vqgan import Vqgan
from HiResMedSynthLib.background.vqgan_file import save_vqgan
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from Training.average import averaged
from Training.checkpoint import CHECKPOINT, check_same_run
from Training.clock import now_s
from Training.interrupts import HeldInterrupts
from Training.pictures import grey8, tiled
from Training.precision import autocast
from Training.report import begin_log, log_entry
from Training.schedule import rate_share
from Training.vqgan_step import VqganTraining

BLIND = 1.95  # the hinge loss of a discriminator that can't tell is 2
MEASURED = 16  # films of each side


def train(
    training: VqganTraining,
    *,
    out: Path,
    description: dict[str, Any],
    resume: bool = False,
    time_limit_s: float = math.inf,
) -> Vqgan:
    """The network with its averaged weights; checkpoints, log and sheets in `out`.

    Raises:
        SettingsError: `out` holds a run and `resume` wasn't asked, or its checkpoint is of another run or other layers.
        HiResMedSynthError: the loss stayed NaN or infinite, or the processes' weights drifted apart.
    """
    ranks, settings, state = training.ranks, training.settings, training.state
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        if not resume:
            raise SettingsError("This folder holds a run", where=out, remedy="Give --resume, or another folder.")
        check_same_run(checkpoint, description)
        state.load(checkpoint)
        if not ranks.first:
            state.counts.zero_()  # the file tells those of all processes
    timed = training.choose_precision()
    if ranks.first and timed:
        click.echo(f"{training.precision} ({', '.join(f'{name} {s:.3f} s a step' for name, s in timed.items())})")
    if ranks.first and not checkpoint.exists():
        begin_log(out, measure(training))
    began = last_saved = last_report = now_s(settings.counted)
    before, reported = state.progress.seconds, state.progress.step

    def save() -> None:
        state.progress.seconds = before + now_s(settings.counted) - began
        ranks.gather_first(state.counts)
        if ranks.first:
            state.save(checkpoint, description)

    training.network.train()
    came: float = False
    with HeldInterrupts() as interrupts:
        while state.progress.step < settings.steps:
            over, came = ranks.largest(now_s(settings.counted) - began >= time_limit_s, interrupts.came)
            if over or came:
                break
            rate = settings.learning_rate * rate_share(state.progress.step, settings)
            for optimiser in (state.optimiser, state.adversary_optimiser):
                for group in optimiser.param_groups:
                    group["lr"] = rate
            try:
                training.step()
            except HiResMedSynthError:  # too many steps were skipped: the weights are those before them
                save()
                raise
            at = state.progress.step
            if at % settings.report_every == 0 or at == settings.steps:
                ranks.check_equal(training.network)
                entry = report(training)
                now = now_s(settings.counted)
                pace = (now - last_report) / (at - reported)
                entry |= {
                    "rate": rate,
                    "seconds_per_step": round(pace, 4),
                    "images_per_s": round(settings.batch / pace, 2),
                    "seconds": round(before + now - began, 1),
                    "left_s": round(min((settings.steps - at) * pace, time_limit_s - (now - began))),
                }
                last_report, reported = now, at
                if ranks.first:
                    log_entry(out, entry)
            if at % settings.sheet_every == 0 and ranks.first:
                write_sheet(training, out / f"sheet-{at:06d}.png")
            if ranks.any(now_s(settings.counted) - last_saved > settings.checkpoint_minutes * 60):
                save()
                last_saved = now_s(settings.counted)
        save()  # so that --resume goes on from here
    if came or interrupts.came:
        raise KeyboardInterrupt
    if ranks.first:
        write_sheet(training, out / "sheet-last.png")
    training.network.load_state_dict(state.average)
    if ranks.first:
        save_vqgan(training.network, out / "vqgan.safetensors", training=description)
    return training.network.eval()


def report(training: VqganTraining) -> dict[str, Any]:
    """Means since the last report over all processes, use of the codes, errors of films; an alarm where one is due."""
    ranks = training.ranks
    names = sorted(training.logged)
    means = ranks.mean(torch.tensor([float(np.mean(training.logged[n])) for n in names], device=training.device))
    entry: dict[str, Any] = {"step": training.state.progress.step, "precision": training.precision}
    entry |= {name: round(value, 5) for name, value in zip(names, means.tolist(), strict=True)}
    counts = ranks.sum(training.window_counts)
    entry |= {"code_use": round(usage(counts), 4), "code_perplexity": round(perplexity(counts), 2)}
    if ranks.first:
        entry |= measure(training)
    entry |= {"skipped": training.state.progress.skipped, "processes": ranks.world}
    if entry.get("discriminator", 0.0) > BLIND:
        entry["alarm"] = "the discriminator can't tell real from made: it teaches nothing"
    training.logged.clear()
    training.window_counts.zero_()
    return entry


@torch.no_grad()
def measure(training: VqganTraining) -> dict[str, float]:
    """Mean absolute error inside the field of the averaged weights, on unchanged training and held-out films."""
    films, results = training.films, {}
    with averaged(training.network, training.state.average):
        for held_out, name in ((False, "train_l1"), (True, "held_out_l1")):
            error = area = 0.0
            for part in films.side(held_out=held_out)[:MEASURED].split(training.settings.batch):
                image, mask = films.chosen(part)
                with autocast(training.precision, training.device):
                    made = training.network(image).image
                error += float(((made - image).abs() * mask).sum()) / made.shape[1]
                area += float(mask.sum())
            results[name] = round(error / area, 5)
    return results


@torch.no_grad()
def write_sheet(training: VqganTraining, path: Path) -> None:
    """Six held-out films over their reconstructions by the averaged weights, at full size."""
    image, mask = training.films.chosen(training.films.side(held_out=True)[:6])
    with averaged(training.network, training.state.average), autocast(training.precision, training.device):
        made = torch.cat([training.network(one[None]).image[:, :1] for one in image]) * mask
    Image.fromarray(tiled(grey8(torch.cat([image, made])[:, 0]), across=len(image))).save(path)
