"""train_singan(grids) -> one SinGan a lesion, of one lesion or of several of equal size at once.

A run's folder holds `checkpoint.safetensors` (everything needed to go on to the same weights as an uncut run),
`log.jsonl` (a line a report) and, at the end, `singan-<number>.safetensors` for each lesion.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import BankError, HiResMedSynthError, SettingsError
from HiResMedSynthLib.free_memory import is_short_of_memory
from HiResMedSynthLib.lesion import singan_settings
from HiResMedSynthLib.lesion.singan import (
    CHANNELS,
    LARGEST_SIDE,
    SinGan,
    check_values,
    make_generator,
)
from HiResMedSynthLib.lesion.singan_data import LesionSet
from HiResMedSynthLib.lesion.singan_memory import LESS, check_memory
from HiResMedSynthLib.lesion.singan_merged import MergedScale
from HiResMedSynthLib.lesion.singan_nets import ScaleNet
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings
from HiResMedSynthLib.lesion.singan_step import Chain, Scale
from HiResMedSynthLib.whole_tensors import read_tensors, save_state

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"
CHECKPOINT_FORMAT = "hiresmedsynth-singan-run-1"
CHECKPOINT_S = 30.0
DEAD_ITERATIONS = 100
DEAD_GAP, DEAD_LOSS = 1e-3, 0.01  # the latter a share of what a critic loses that answers alike to all
CPU = torch.device("cpu")

Report = Callable[[dict[str, Any]], None]


def train_singan(
    grids: Sequence[NDArray[np.floating]],
    preset: str | SinGanSettings = "better",
    *,
    seed: int = 1,
    out: Path,
    resume: bool = False,
    time_limit_s: float = math.inf,
    device: str = "cpu",
    bf16: bool = False,
    graph: bool = False,
    report: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
    largest_side: int = LARGEST_SIDE,
) -> list[SinGan]:
    """Trains one GAN for each lesion; lesion k is trained as alone with `seed + k`.

    Args:
        grids: float `[2, *space]` each, of one shape (`lesion_grid.to_grid(...).values` or `crop_2d`).
        preset: "paper", "better", "tiny", or settings.
        seed: of all randomness.
        out: folder of the run.
        resume: go on with the run that the folder holds.
        time_limit_s: training stops after it; what isn't trained only enlarges (`SinGan.finished` is False).
        device: "cpu" or "cuda".
        bf16: networks compute in bfloat16.
        graph: on cuda, the iteration is captured once and replayed (plain iterations where that fails).
        report: called with each line of the log.
        cancelled: asked before each iteration; True stops as a time limit does.
        largest_side: of a grid, in voxels; more than a lesion's is for the baseline of whole films.

    Raises:
        BankError: a grid that can't be a lesion, or grids of different shapes.
        SettingsError: the folder holds another run.
        HiResMedSynthError: the critic died, a loss became NaN, or there is too little memory.
    """
    if len(grids) == 0:
        raise BankError("there is no lesion to train on", remedy="Give one or more.")
    for grid in grids:
        check_values(grid, largest_side=largest_side)
    if len({grid.shape for grid in grids}) > 1:
        raise BankError(
            "lesions trained together must have one shape", remedy="Resample them to one size, or train one by one."
        )
    settings = singan_settings.preset(preset, grids[0].ndim - 1) if isinstance(preset, str) else preset
    check_memory(settings, grids[0].shape[1:], len(grids), torch.device(device))
    run = _Run(settings, grids, seed=seed, out=out, device=torch.device(device), bf16=bf16, graph=graph)
    began, cancelled = time.monotonic(), cancelled or (lambda: False)
    try:
        run.open(resume=resume)
        finished = run.train(lambda: time.monotonic() - began > time_limit_s or cancelled(), report or (lambda _: None))
    except Exception as problem:
        if is_short_of_memory(problem):
            raise HiResMedSynthError("the memory ran out in training", where=out, remedy=LESS) from problem
        raise
    models = run.models(finished=finished)
    for number, model in enumerate(models):
        model.save(out / f"singan-{number}.safetensors")
    return models


class _Run:
    """K lesions' training: which scale, which iteration, and what is trained so far."""

    def __init__(
        self,
        settings: SinGanSettings,
        grids: Sequence[NDArray[np.floating]],
        *,
        seed: int,
        out: Path,
        device: torch.device,
        bf16: bool,
        graph: bool,
    ) -> None:
        self.settings, self.seed, self.out, self.device, self.bf16 = settings, seed, out, device, bf16
        self.graph = graph and device.type == "cuda"
        self.set = LesionSet(settings, grids, seed=seed, device=device)
        self.lesions, self.dims, self.sizes = self.set.lesions, self.set.dims, self.set.sizes
        self.nets: list[ScaleNet] = []
        self.amplitudes: list[Tensor] = []
        self.iteration, self.seconds, self.lines = 0, 0.0, 0
        self.dead, self.errors = 0, list[float]()
        self.current: Scale | None = None
        self._ran = 0  # iterations here
        self._whole = True  # False inside one, its report and a scale's end: not to be stored
        self._measured: list[Tensor] = []

    @property
    def scale(self) -> int:
        return len(self.nets)

    def open(self, *, resume: bool) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        checkpoint = self.out / CHECKPOINT
        if not checkpoint.exists():
            (self.out / LOG).unlink(missing_ok=True)
            self._begin_scale()
        elif not resume:
            raise SettingsError("this folder holds a run", where=self.out, remedy="Resume it, or give another folder.")
        else:
            self._restore(checkpoint)

    def train(self, stop: Callable[[], bool], report: Report) -> bool:
        """True where all scales were trained, False where `stop` ended it."""
        saved = time.monotonic()
        try:
            while self.scale < len(self.sizes):
                if stop():
                    self._save()
                    return False
                self._iterate(report)
                if time.monotonic() - saved > CHECKPOINT_S:
                    self._save()
                    saved = time.monotonic()
        except BaseException as problem:  # Ctrl-C, or what a callback raised
            if self._whole and not isinstance(problem, _TrainingFailedError):
                self._save()
            raise
        return True

    def _iterate(self, report: Report) -> None:
        s, scale = self.settings, self.current
        assert scale is not None
        total, began = s.iterations_at(self.scale), time.monotonic()
        if self.iteration == round(s.decay_at * total):
            scale.set_rate_share(0.1)
        self._whole = False
        scale.prepare(self.iteration)
        if self.graph and self._ran == 3:
            self._try_graph(scale)
        scale.iterate()
        self._measured.append(scale.metrics.clone())
        self.iteration, self._ran = self.iteration + 1, self._ran + 1
        ends = self.iteration >= total
        if len(self._measured) >= s.report_every or ends:
            flat = self._report(report, total, began)
            ends = ends or flat
        self.seconds += time.monotonic() - began
        if ends:
            self._end_scale()
        self._whole = True

    def _try_graph(self, scale: Scale) -> None:
        try:
            scale.capture()
        except RuntimeError as problem:
            self.graph = False
            self._note({"note": f"no CUDA graph: {str(problem)[:200]}"})

    def _report(self, report: Report, total: int, began: float) -> bool:
        """Logs the last iterations' means; True where the scale has gone flat."""
        window = torch.stack(self._measured).cpu().double().numpy()  # [iterations, metrics, lesions]
        self._measured.clear()
        gap, d_loss, g_loss, rec = window.mean(axis=0)
        seconds = self.seconds + time.monotonic() - began
        entry: dict[str, Any] = {
            "scale": self.scale,
            "scales": len(self.sizes),
            "side": max(self.sizes[self.scale]),
            "iteration": self.iteration,
            "iterations": total,
            "gap": round(float(gap.mean()), 5),
            "d_loss": round(float(d_loss.mean()), 5),
            "g_loss": round(float(g_loss.mean()), 5),
            "rec_rmse": round(float(np.sqrt(rec.mean())), 5),
            "seconds": round(seconds, 2),
            "left_s": round(self._left_s(seconds), 1),
        }
        if self.lesions > 1:
            entry["gaps"] = [round(float(g), 5) for g in gap]
            entry["rec_rmses"] = [round(float(np.sqrt(r)), 5) for r in rec]
        self._note(entry)
        report(entry)
        if not np.isfinite(window).all():
            raise _TrainingFailedError(
                f"a loss became NaN at scale {self.scale}, iteration {self.iteration}",
                where=self.out,
                remedy="Train with another seed, or lower g_rate and d_rate; the last checkpoint can be resumed.",
            )
        blind = 2.0 if self.settings.adversary == "hinge" else self.settings.gradient_penalty  # without a slope
        is_dead = (np.abs(window[:, 0]) < DEAD_GAP) & (np.abs(window[:, 1] - blind) < DEAD_LOSS * blind)
        self.dead = self.dead + len(window) if is_dead.all(axis=0).any() else 0
        if self.dead >= DEAD_ITERATIONS:
            raise _TrainingFailedError(
                f"the critic is dead: for {self.dead} iterations it told the lesion from nothing "
                f"(gap {gap.mean():.1e}, loss {d_loss.mean():.3f})",
                where=self.out,
                remedy="Train with another seed, or raise d_rate.",
            )
        self.errors.append(float(np.sqrt(rec.max())))
        return self._is_flat()

    def _is_flat(self) -> bool:
        s, n = self.settings, self.settings.flat_window
        if s.flat <= 0 or len(self.errors) < 2 * n:
            return False
        before, after = np.mean(self.errors[-2 * n : -n]), np.mean(self.errors[-n:])
        return bool(after > (1 - s.flat) * before)

    def _left_s(self, seconds: float) -> float:
        cost = [self._cost(k) for k in range(len(self.sizes))]
        whole = [c * self.settings.iterations_at(k) for k, c in enumerate(cost)]
        done = sum(whole[: self.scale]) + cost[self.scale] * self.iteration
        return seconds / done * (sum(whole) - done)

    def _cost(self, scale: int) -> float:
        """Of one iteration, in units that cancel: voxels and channels, and a part that doesn't depend on them."""
        voxels = math.prod(n + self.settings.layers for n in self.sizes[scale])
        return 1e6 + voxels * self.settings.width(scale) ** 2

    def _begin_scale(self) -> None:
        """New networks for the next scale, with the weights of the scale before where they fit."""
        before, chain = self.current, Chain(self.settings, self.nets, self.amplitudes, self.sizes)
        merged = self.device.type == "cuda" and MergedScale.fits(self.settings)
        scale = (MergedScale if merged else Scale)(
            self.settings,
            self.set.data(chain),
            chain,
            scale=self.scale,
            lesions=self.lesions,
            seed=self.seed,
            device=self.device,
            bf16=self.bf16,
        )
        if before is not None:
            scale.take_over(before)
        if self.graph and self.lesions > 1:
            scale.choose_form()
        self.current, self.iteration, self._ran = scale, 0, 0
        self.errors, self._measured = [], []

    def _end_scale(self) -> None:
        scale = self.current
        assert scale is not None
        scale.generator.load_state_dict(scale.trained_state())
        self.nets.append(scale.generator.eval().requires_grad_(False))
        self.amplitudes.append(scale.data.amplitude)
        self.iteration = 0
        if self.scale < len(self.sizes):
            self._begin_scale()
        self._save()

    def models(self, *, finished: bool) -> list[SinGan]:
        """A model of each lesion, on the CPU."""
        trained, amplitudes = [net.state_dict() for net in self.nets], list(self.amplitudes)
        if not finished and self.current is not None and self.iteration > 0:
            trained.append(self.current.trained_state())
            amplitudes.append(self.current.data.amplitude)
        found = []
        for k, grid in enumerate(self.set.grids):
            states = [{n: _rows(v, k, self.lesions) for n, v in state.items()} for state in trained]
            levels = [float(a[0, k * CHANNELS].flatten()[0]) for a in amplitudes]
            start = None if self.set.start is None else self.set.start[:, k : k + 1]
            found.append(SinGan(self.settings, grid, states, levels, start, finished=finished))
        return found

    def _note(self, entry: dict[str, Any]) -> None:
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        self.lines += 1

    def _identity(self) -> dict[str, Any]:
        data = hashlib.sha256(b"".join(np.ascontiguousarray(grid).tobytes() for grid in self.set.grids)).hexdigest()
        return {"settings": self.settings.to_json(), "seed": self.seed, "lesions": self.lesions, "data": data}

    def _save(self) -> None:
        """Writes everything a run needs to go on, as one file that is either the old or the new one."""
        tensors: dict[str, Tensor] = {}
        for number, (net, amplitude) in enumerate(zip(self.nets, self.amplitudes, strict=True)):
            tensors[f"amplitude.{number}"] = amplitude
            tensors |= {f"scale.{number}.{name}": value for name, value in net.state_dict().items()}
        if self.current is not None and self.scale < len(self.sizes):
            tensors |= {f"now.{name}": value for name, value in self.current.tensors()}
        state = {
            **self._identity(),
            "format": CHECKPOINT_FORMAT,
            "scales_done": self.scale,
            "iteration": self.iteration,
            "seconds": self.seconds,
            "lines": self.lines,
            "dead": self.dead,
            "errors": self.errors,
            "measured": [m.cpu().tolist() for m in self._measured],
        }
        save_state(self.out / CHECKPOINT, tensors, state)

    def _restore(self, path: Path) -> None:
        try:
            stored, state = read_tensors(path, "state", "pt")
            if any(state[name] != value for name, value in self._identity().items()):
                raise SettingsError(
                    "this folder holds a run of another lesion, preset or seed",
                    where=self.out,
                    remedy="Give what that run was started with, or another folder.",
                )
            for number in range(state["scales_done"]):
                net = make_generator(self.settings, number, lesions=self.lesions, dims=self.dims).to(self.device)
                prefix = f"scale.{number}."
                net.load_state_dict({n[len(prefix) :]: v for n, v in stored.items() if n.startswith(prefix)})
                self.nets.append(net.eval().requires_grad_(False))
                self.amplitudes.append(stored[f"amplitude.{number}"].to(self.device))
            if self.scale < len(self.sizes):
                self._begin_scale()
                assert self.current is not None
                self.current.restore({n[4:]: v for n, v in stored.items() if n.startswith("now.")})
                self._measured = [torch.tensor(m, device=self.device) for m in state["measured"]]
                if state["iteration"] > round(self.settings.decay_at * self.settings.iterations_at(self.scale)):
                    self.current.set_rate_share(0.1)
            self.iteration, self.seconds = int(state["iteration"]), float(state["seconds"])
            self.dead, self.errors = int(state["dead"]), [float(e) for e in state["errors"]]
            self._cut_log(int(state["lines"]))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as problem:
            raise SettingsError(
                f"the checkpoint can't be read ({type(problem).__name__}: {str(problem)[:120]})",
                where=path,
                remedy="Delete the folder and train anew.",
            ) from problem

    def _cut_log(self, lines: int) -> None:
        """Drops what was logged after the checkpoint: those iterations come again."""
        log = self.out / LOG
        kept = log.read_text(encoding="utf-8").splitlines(keepends=True)[:lines] if log.exists() else []
        with written_aside(log) as aside:
            aside.write_text("".join(kept), encoding="utf-8")
        self.lines = len(kept)


class _TrainingFailedError(HiResMedSynthError):
    """Training can't go on; the last checkpoint is left as it is."""


def _rows(value: Tensor, lesion: int, lesions: int) -> Tensor:
    """One lesion's rows of a grouped parameter or buffer."""
    rows = len(value) // lesions
    return value[lesion * rows : (lesion + 1) * rows].detach().cpu().clone()
