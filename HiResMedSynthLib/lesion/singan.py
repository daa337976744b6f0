"""SinGan: the trained single-image GAN of one lesion (paper, Eq. 13), in two or three dimensions.

A model file is safetensors: float16 tensors under `singan.`, and a JSON header entry `singan`. Other tensors and header
entries may stand beside them (a store's card, the lesion itself).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.lesion.lesion_grid import BOX_ALPHA, SURE_ALPHA
from HiResMedSynthLib.lesion.singan_nets import ScaleNet, generate, resize
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings
from HiResMedSynthLib.lesion.singan_warp import Warp, Warper, draw_warp
from HiResMedSynthLib.whole_tensors import save_tensors

FORMAT, VERSION = "hiresmedsynth-singan", 1
CHANNELS = 2
SMALLEST_SIDE, LARGEST_SIDE = 8, 64
MOST_UNITS = 10.0  # of premultiplied intensity: 9140 HU
HAZE_ALPHA = 0.03  # fainter is noise of the networks
REPAIR = "Train the lesion's model anew: hiresmedsynth lesion train."


@dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """From a grid's values to the network's: (value - offset) / gain, for each channel."""

    offset: tuple[float, float]
    gain: tuple[float, float]

    @classmethod
    def of(cls, values: NDArray[np.floating], *, symmetric: bool) -> Scaling:
        """To 0..1 with zero kept, or to -1..1."""
        lowest, highest = min(float(values[0].min()), 0.0), max(float(values[0].max()), 0.05)
        if symmetric:
            return cls(offset=((lowest + highest) / 2, 0.5), gain=((highest - lowest) / 2, 0.5))
        return cls(offset=(0.0, 0.0), gain=(highest, 1.0))

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """`[2, *space]` in the network's units."""
        return np.stack([(values[c] - self.offset[c]) / self.gain[c] for c in range(CHANNELS)]).astype(np.float32)

    def undo(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """`[2, *space]` in the grid's units."""
        return np.stack([values[c] * self.gain[c] + self.offset[c] for c in range(CHANNELS)]).astype(np.float32)


class SinGan:
    """One lesion's generators; `sample` gives new lesions.

    Args:
        settings: of its training.
        values: float32 `[2, *space]`, the lesion as a grid (`lesion_grid`).
        generators: a state dict for each trained scale, coarsest first; further scales only enlarge.
        amplitudes: of the noise at each trained scale.
        start: fixed noise z* at the first scale that gives the lesion back, `[1, *space]`; None where the start is a
            deformed image.
        finished: False where training was cut short.

    Weights are rounded to float16, as they are stored: a saved model samples what the unsaved one did.
    """

    def __init__(
        self,
        settings: SinGanSettings,
        values: NDArray[np.floating],
        generators: Sequence[Mapping[str, Tensor]],
        amplitudes: Sequence[float],
        start: Tensor | None,
        *,
        finished: bool = True,
    ) -> None:
        self.settings, self.finished = settings, finished
        self.values = np.asarray(values, dtype=np.float16).astype(np.float32)
        self.sizes = settings.sizes(self.values.shape[1:])
        self.amplitudes = [float(a) for a in amplitudes]
        self.scaling = Scaling.of(self.values, symmetric=settings.tanh)
        self.start = None if start is None else start.half().float().cpu()
        self.nets = []
        for scale, state in enumerate(generators):
            net = make_generator(settings, scale, lesions=1, dims=self.dims)
            net.load_state_dict({name: value.half().float().cpu() for name, value in state.items()})
            self.nets.append(net.eval())
        self._warper = Warper(self.values)
        alpha = self.values[1]
        tissue = self.values[0][alpha > BOX_ALPHA] / alpha[alpha > BOX_ALPHA]
        sure = self.values[0][alpha > SURE_ALPHA] / alpha[alpha > SURE_ALPHA]
        tissue = sure if len(sure) else tissue
        self._tissue = (float(tissue.min()), float(tissue.max()))

    @property
    def dims(self) -> int:
        """Dimensions of space, 2 or 3."""
        return self.values.ndim - 1

    def sample(self, rng: np.random.Generator, *, diversity: float = 1.0) -> NDArray[np.float32]:
        """A new lesion, float32 `[2, *space]` in the grid's units.

        Args:
            rng: all randomness; the same stream gives the same lesion.
            diversity: 0 gives the lesion back, 1 is what training aimed at; more bends and varies more.
        """
        noises = [self._normal(rng, size) * diversity for size in self.sizes[: len(self.nets)]]
        if self.start is None:
            warp = draw_warp(rng, self.dims, self.settings.start_strength * diversity)
            return self._run(self.start_image(warp), noises)
        drawn = self._normal(rng, self.sizes[0], channels=1)
        share = min(diversity, 1.0)
        first = math.sqrt(1 - share**2) * self.start + share * drawn
        noises[0] = first.expand(1, CHANNELS, *self.sizes[0])
        return self._run(None, noises)

    def reconstruct(self) -> NDArray[np.float32]:
        """The lesion as the generators give it back from fixed noise, float32 `[2, *space]`."""
        quiet = [torch.zeros(1, CHANNELS, *size) for size in self.sizes[: len(self.nets)]]
        if self.start is None:
            return self._run(self.start_image(draw_warp(np.random.default_rng(0), self.dims, 0.0)), quiet)
        quiet[0] = self.start.expand(1, CHANNELS, *self.sizes[0])
        return self._run(None, quiet)

    def rmse_hu(self) -> float:
        """How far `reconstruct` is from the lesion where alpha > .3: RMSE of alpha (F + 860), HU."""
        inside = self.values[1] > SURE_ALPHA
        return float(np.sqrt(np.mean(((self.reconstruct() - self.values)[0][inside] * 1000.0) ** 2)))

    def start_image(self, warp: Warp) -> Tensor:
        """`[1, 2, *first scale]` in the network's units: the coarse lesion after a deformation."""
        return start_image(self._warper, self.scaling, self.settings, self.sizes[0], warp)

    def _normal(self, rng: np.random.Generator, size: tuple[int, ...], channels: int = CHANNELS) -> Tensor:
        return torch.from_numpy(rng.standard_normal((1, channels, *size), dtype=np.float32))

    def _run(self, image: Tensor | None, noises: list[Tensor]) -> NDArray[np.float32]:
        with torch.no_grad():
            x = torch.zeros(1, CHANNELS, *self.sizes[0]) if image is None else image
            for scale, size in enumerate(self.sizes):
                x = resize(x, size)
                if scale < len(self.nets):
                    both = noises[scale] * self.amplitudes[scale], x
                    if self.dims == 3:  # two alike: a CPU's convolution of one volume is several times slower
                        both = both[0].repeat(2, 1, 1, 1, 1), x.repeat(2, 1, 1, 1, 1)
                    x = run_generator(self.settings, self.nets[scale], *both)[:1]
        values = self.scaling.undo(x[0].numpy())
        alpha = np.clip(values[1], 0, 1)
        alpha[alpha < HAZE_ALPHA] = 0.0
        lowest, highest = self._tissue
        return np.stack([np.clip(values[0], alpha * lowest, alpha * highest), alpha])

    def save(
        self,
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
        tensors: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Writes the model, atomically; `metadata` and `tensors` are stored beside it."""

        packed: dict[str, NDArray[Any]] = {"singan.values": self.values.astype(np.float16)}
        if self.start is not None:
            packed["singan.start"] = self.start.numpy().astype(np.float16)
        for scale, net in enumerate(self.nets):
            for name, value in net.state_dict().items():
                packed[f"singan.{scale}.{name}"] = value.numpy().astype(np.float16)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "settings": self.settings.to_json(),
            "amplitudes": self.amplitudes,
            "finished": self.finished,
        }
        save_tensors(path, {**packed, **(tensors or {})}, {**(metadata or {}), "singan": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> SinGan:
        """The model in a file.

        Raises:
            BankError: missing, damaged, or of another version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("singan", "{}"))
                _check_header(header, path)
                stored = {n[7:]: file.get_tensor(n) for n in file.keys() if n.startswith("singan.")}  # noqa: SIM118
            settings = SinGanSettings.from_json(header["settings"])
            count = len(header["amplitudes"])
            states = [
                {n.split(".", 1)[1]: t.float() for n, t in stored.items() if n.startswith(f"{scale}.")}
                for scale in range(count)
            ]
            values = stored["values"].float().numpy()
            check_values(values)
            start = stored.get("start")
            return cls(settings, values, states, header["amplitudes"], start, finished=bool(header["finished"]))
        except BankError:
            raise
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise BankError(
                f"this model can't be read ({type(error).__name__}: {str(error)[:120]})", where=path, remedy=REPAIR
            ) from error


def _check_header(header: dict[str, Any], path: Path) -> None:
    if header.get("format") != FORMAT:
        raise BankError("this is no SinGAN model of a lesion", where=path, remedy=REPAIR)
    if header.get("version") != VERSION:
        raise BankError(
            f"this model is of version {header.get('version')}, this program reads version {VERSION}",
            where=path,
            remedy="Update HiResMedSynth, or train the model anew.",
        )


def make_generator(settings: SinGanSettings, scale: int, *, lesions: int, dims: int) -> ScaleNet:
    """An untrained generator of a scale for K lesions."""
    return ScaleNet(
        lesions,
        CHANNELS,
        CHANNELS,
        width=settings.width(scale),
        layers=settings.layers,
        dims=dims,
        batch_norm=settings.batch_norm,
        padding=0 if settings.pad_outside else 1,
    )


def run_generator(settings: SinGanSettings, net: ScaleNet, noise: Tensor, image: Tensor) -> Tensor:
    """A scale's image from scaled noise and the enlarged image of the scale below."""
    return generate(net, noise, image, pad=settings.layers if settings.pad_outside else 0, tanh=settings.tanh)


def start_image(
    warper: Warper, scaling: Scaling, settings: SinGanSettings, size: tuple[int, ...], warp: Warp
) -> Tensor:
    """The deformed coarse lesion `[1, 2, *size]`; seen at `start_side` where that is coarser than the first scale."""
    ratio = min(settings.start_side / min(size), 1.0) if settings.start_side else 1.0
    coarse = tuple(round(n * ratio) for n in size)
    return resize(tensor(scaling.apply(warper(warp, coarse)))[None], size)


def tensor(values: NDArray[np.floating]) -> Tensor:
    """In torch's default type: float32, in which training is chaotic, or float64 where runs are compared."""
    return torch.from_numpy(values).to(torch.get_default_dtype())


def check_values(values: NDArray[Any], *, largest_side: int = LARGEST_SIDE) -> None:
    """Refuses what can't be a lesion's grid, of `largest_side` voxels at most.

    Raises:
        BankError: wrong shape, too large or small, NaN, empty, or not alpha and premultiplied intensity.
    """
    shape = tuple(values.shape)
    if values.ndim not in (3, 4) or shape[0] != CHANNELS or values.dtype.kind != "f":
        raise BankError(
            f"a lesion to train on has two channels (intensity, matte) of decimals, not {values.dtype} {shape}",
            remedy="Cut the lesion out of a CT or radiograph in modality units; a colour picture can't be used.",
        )
    if max(shape[1:]) > largest_side:
        raise BankError(
            f"this lesion is {max(shape[1:])} voxels wide; {largest_side} is the most",
            remedy="Resample it to 32 (3-D) or 64 (2-D) voxels a side with lesion_grid.to_grid or crop_2d.",
        )
    if min(shape[1:]) < SMALLEST_SIDE:
        raise BankError(
            f"this lesion is {min(shape[1:])} voxels wide; {SMALLEST_SIDE} is the least",
            remedy="Resample it to 32 (3-D) or 64 (2-D) voxels a side with lesion_grid.to_grid or crop_2d.",
        )
    if not np.isfinite(values).all():
        raise BankError("the lesion holds NaN or infinite values", remedy="Fill or crop the faulty part of the image.")
    if not (values[1] > SURE_ALPHA).any():
        raise BankError("the lesion's matte is empty", remedy="Outline the lesion itself: the mask must meet it.")
    if values[1].min() < -0.01 or values[1].max() > 1.01 or np.abs(values[0]).max() > MOST_UNITS:
        raise BankError(
            "the values are no matte of 0..1 with premultiplied intensity in units of 1000 HU",
            remedy="Make them with lesion_grid.to_grid or crop_2d.",
        )
