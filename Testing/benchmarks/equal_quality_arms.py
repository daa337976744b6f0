"""The arms of `equal_quality`: two ways of coding films of 256 px in 16 x 16 codes of 10 bits, in training."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.background.cascade import REDUCTION, FilmCascade, TrainedStage, build_network
from HiResMedSynthLib.background.quantiser import Codebook, count_codes, perplexity
from HiResMedSynthLib.background.vqgan import Vqgan
from Training.captured_step import PLAIN_STEPS, CapturedStep, adamw
from Training.draws import Draws
from Training.film_data import FilmSet
from Training.film_stages import CoarseFilm, make_stage
from Training.flow_loop import FlowLesson, Stage
from Training.loop import LoopSettings
from Training.objective import FlowMatching
from Training.precision import autocast
from Training.train_vqgan import make_shape, read_vqgan_preset
from Training.vqgan_losses import equation_1
from Training.vqgan_step import make_settings

STRIDES = (4, 2, 2)  # of `vqgan`: 256 px to 16 x 16 codes
REVIVE = 100  # steps between revivals of dead codes
READ_EVERY = 20  # steps that the host may run ahead

Films = NDArray[np.float32]
Fields = NDArray[np.bool_]


class Arm(Protocol):
    """One way of coding films, in training."""

    def train(self, seconds: float) -> float:
        """Trains for about so long; how long it was."""

    def rebuild(self, films: Films, fields: Fields) -> Films:
        """Films [n, 256, 256] in -1..1 encoded and made again, by the averaged weights."""

    def facts(self) -> dict[str, float]:
        """Steps, mean loss since the last turn, ..."""


class Trainer:
    """One network and its steps."""

    def __init__(self, network: nn.Module, loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer, *, rate: float,
                 warm_up: int, average: float, clip: float, seed: int, device: str) -> None:  # fmt: skip
        self.network, self.rate, self.warm_up, self.decay, self.seed = network, rate, warm_up, average, seed
        self.device, self.at, self.loss = device, 0, float("nan")
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = CapturedStep(network, self.average, optimiser, loss, clip=clip)
        for _ in range(PLAIN_STEPS + 1):  # the capture is not on the clock
            self.take()
        self.captured = self.step.graph is not None

    def take(self) -> None:
        """One step."""
        share = 1 - min(self.decay, (1 + self.at) / (10 + self.at))
        rate = self.rate * min(1.0, (self.at + 1) / max(self.warm_up, 1))
        self.step.take(seed=self.seed * 1_000_003 + self.at, rate=rate, share=share)
        self.at += 1

    def train(self, seconds: float, *, each: Callable[[int], None] = lambda _at: None) -> float:
        """Trains for about so long; how long it was."""
        began = _now(self.device)
        while _now(self.device, wait=self.at % READ_EVERY == 0) - began < seconds:
            self.take()
            each(self.at)
        spent = _now(self.device) - began
        self.loss = self.step.read()[0]
        return spent

    def averaged(self) -> Any:
        """The network with its averaged weights."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self.average)
        return network.eval()


class Better:
    """The cascade's first two stages."""

    def __init__(self, films: FilmSet, preset: dict[str, Any], *, device: str) -> None:
        self.stages: dict[str, Stage] = {}
        self.trainers: dict[str, Trainer] = {}
        for name in ("film", "detail-256"):
            settings = LoopSettings.changed(preset[name]["loop"])
            torch.manual_seed(settings.seed)
            network = build_network(preset[name]).to(device).train()
            stage = make_stage(name, preset, films, device=device)
            lesson = FlowLesson(stage, FlowMatching(time_mean=settings.time_mean, time_sd=settings.time_sd))
            loss = lesson.drawn_loss(network, precision=_precision(device), device=device)
            assert loss is not None
            optimiser = adamw(
                network, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, device=device,
                captured=True,
            )  # fmt: skip
            self.stages[name] = stage
            self.trainers[name] = Trainer(
                network, loss, optimiser, rate=settings.learning_rate, warm_up=settings.warm_up,
                average=settings.average, clip=settings.clip, seed=settings.seed, device=device,
            )  # fmt: skip

    def train(self, seconds: float) -> float:
        """Half of it each stage."""
        return sum(trainer.train(seconds / 2) for trainer in self.trainers.values())

    def rebuild(self, films: Films, fields: Fields) -> Films:
        """By the cascade of the averaged weights, as it ships."""
        constants = {name: stage.constants() for name, stage in self.stages.items()}
        stages = {
            name: TrainedStage(
                network=trainer.averaged(), unit=constants[name]["unit"], spacing_mm=constants[name]["spacing_mm"]
            )
            for name, trainer in self.trainers.items()
        }
        size, grid = (int(constants["film"][key]) for key in ("size", "grid"))
        cascade = FilmCascade(domain="cxr", stages=stages, film_side=size, grid=grid)
        made = []
        with torch.no_grad():
            for film, field in zip(films, fields, strict=True):
                inside = nn.functional.avg_pool2d(torch.from_numpy(field.astype(np.float32))[None, None], REDUCTION)
                generator = torch.Generator().manual_seed(1)
                codes = cascade.encode(film, field)
                coarse = cascade.coarse(generator, codes=codes, inside=(inside > 0.5).float())
                made.append(cascade.finish(coarse.clamp(-1, 1), generator))
        return np.stack(made)

    def facts(self) -> dict[str, float]:
        """Of both stages."""
        steps = {f"steps, {name}": float(trainer.at) for name, trainer in self.trainers.items()}
        losses = {f"loss, {name}": trainer.loss for name, trainer in self.trainers.items()}
        return steps | losses | {"captured": float(all(one.captured for one in self.trainers.values()))}


class PlainVqgan:
    """The preset `vqgan` at 256 px, by Eq. 1 without its adversary."""

    def __init__(
        self, films: CoarseFilm, preset: str, *, faster: float, perceptual: nn.Module | None, device: str
    ) -> None:
        tables = read_vqgan_preset(preset)
        settings = make_settings(tables["loop"])
        torch.manual_seed(settings.seed)
        self.network = (
            Vqgan(make_shape({**tables["network"], "strides": STRIDES}, size=films.size * REDUCTION)).to(device).train()
        )
        placed: Any = self.network
        placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
        self.films, self.device, self.perceptual = films, device, perceptual
        self.draws, self.perplexity = Draws(device), 0.0
        self.counts = torch.zeros(self.network.quantiser.entries, dtype=torch.int64, device=device)
        rate: Any = torch.tensor(settings.learning_rate, device=device)
        optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=rate, betas=settings.betas, weight_decay=0.0, fused=True,
            capturable=device != "cpu",
        )  # fmt: skip
        self.trainer = Trainer(
            self.network, self._loss, optimiser, rate=faster * settings.learning_rate, warm_up=settings.warm_up,
            average=settings.average, clip=settings.clip, seed=settings.seed, device=device,
        )  # fmt: skip

    def train(self, seconds: float) -> float:
        """All of it the one network."""
        return self.trainer.train(seconds, each=self._revive)

    def rebuild(self, films: Films, fields: Fields) -> Films:
        """By the averaged weights."""
        network: Vqgan = self.trainer.averaged()
        mask = torch.from_numpy(fields)[:, None].float().to(self.device)
        image = torch.from_numpy(films)[:, None].to(self.device) * mask
        with torch.no_grad():
            made = network(image, mask).image[:, 0]
        return np.asarray(made.clamp(-1, 1).float().cpu().numpy())

    def facts(self) -> dict[str, float]:
        """Of the one network."""
        facts = {"steps": float(self.trainer.at), "loss": self.trainer.loss, "perplexity": self.perplexity}
        return facts | {"captured": float(self.trainer.captured)}

    def _batch(self) -> tuple[Tensor, Tensor]:
        """(films, masks), [B, 1, 256, 256]: those that the film stage's encoder sees."""
        image, mask = self.films.device_batch(self.draws).inputs["picture"].split(1, dim=1)
        mask = (mask > 0.5).float()
        return image * mask, mask

    def _loss(self) -> Tensor:
        image, mask = self._batch()
        with autocast(_precision(self.device), self.device):
            result = self.network(image, mask)
        self.counts += count_codes(result.indices, len(self.counts))
        likeness = None
        if self.perceptual is not None:
            made, real = (part.expand(-1, 3, -1, -1) for part in (result.image * mask, image))
            with autocast(_precision(self.device), self.device):
                likeness = self.perceptual(made, real).float().mean()
        return equation_1(result, image, mask, perceptual=likeness).total()

    @torch.no_grad()
    def _revive(self, at: int) -> None:
        if at % REVIVE:
            return
        assert isinstance(self.network.quantiser, Codebook)
        self.perplexity = perplexity(self.counts)
        encoded = self.network.encoder(self._batch()[0])
        self.network.quantiser.revive(encoded, self.counts, torch.Generator().manual_seed(at))
        self.counts.zero_()


def _precision(device: str) -> str:
    return "float32" if device == "cpu" else "bfloat16"


def _now(device: str, *, wait: bool = True) -> float:
    if wait and device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()
