"""What each scale of K lesions' GANs learns from: their pyramids, mild deformations of them, and coarse starts.

Everything follows from the lesions, the settings and the seed, so that a resumed run makes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HiResMedSynthLib.lesion.singan import CHANNELS, Scaling, start_image, tensor
from HiResMedSynthLib.lesion.singan_nets import resize
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings
from HiResMedSynthLib.lesion.singan_step import Chain, ScaleData, generator_for
from HiResMedSynthLib.lesion.singan_warp import Warp, Warper, draw_warp

T = TypeVar("T")


class LesionSet:
    """K lesions of one shape, in the networks' units.

    Args:
        settings: of the training.
        grids: `[2, *space]` each.
        seed: lesion k draws from `seed + k`.
        device: where the tensors go.
    """

    def __init__(
        self, settings: SinGanSettings, grids: Sequence[NDArray[np.floating]], *, seed: int, device: torch.device
    ) -> None:
        self.settings, self.seed, self.device = settings, seed, device
        self.grids = [np.asarray(grid, dtype=np.float16).astype(np.float32) for grid in grids]  # as models store them
        self.lesions, self.dims = len(grids), grids[0].ndim - 1
        self.sizes = settings.sizes(grids[0].shape[1:])
        self.scalings = [Scaling.of(grid, symmetric=settings.tanh) for grid in self.grids]
        self.warpers = [Warper(grid) for grid in self.grids]
        self.start: Tensor | None = None
        if settings.start == "noise":  # z*, drawn once
            streams = [generator_for(torch.device("cpu"), seed + k, -3) for k in range(self.lesions)]
            drawn = [torch.randn(1, 1, *self.sizes[0], generator=g) for g in streams]
            self.start = torch.cat(drawn, dim=1).half().to(device, torch.get_default_dtype())

    def data(self, chain: Chain) -> ScaleData:
        """What the scale above the chain learns from."""
        s, scale = self.settings, len(chain.nets)
        size = self.sizes[scale]
        ones = torch.ones(1, self.lesions * CHANNELS, *(1,) * self.dims, device=self.device)
        quiet = [torch.zeros(1, self.lesions * CHANNELS, *n, device=self.device) for n in self.sizes[:scale]]
        fixed_noise = torch.zeros(1, self.lesions * CHANNELS, *size, device=self.device)
        if self.start is not None:
            first, z = torch.zeros_like(fixed_noise), self.start.repeat_interleave(CHANNELS, dim=1)
            if scale == 0:
                fixed_noise = z
            else:
                first, quiet[0] = torch.zeros_like(z), z
            lower = None
        else:
            first = self._real_starts()
            lower = self._lower(chain, size)
        fixed = torch.cat([chain(part, quiet) for part in first.split(4)])
        reals = self._reals(size)
        amplitude = ones * (s.noise if scale > 0 or not s.noise_by_error else 1.0)
        if s.noise_by_error and scale > 0:
            apart = (reals[:1] - fixed[:1]).unflatten(1, (self.lesions, CHANNELS)).flatten(2)
            rmse = apart.square().mean(dim=(0, 2)).sqrt()
            amplitude = amplitude * rmse.repeat_interleave(CHANNELS).view_as(ones)
        return ScaleData(reals=reals, lower=lower, fixed=fixed, fixed_noise=fixed_noise, amplitude=amplitude)

    def _reals(self, size: tuple[int, ...]) -> Tensor:
        if self.settings.start == "noise":
            full = np.concatenate([s.apply(g) for s, g in zip(self.scalings, self.grids, strict=True)])
            return resize(tensor(full)[None], size).to(self.device)

        def reals(lesion: int) -> NDArray[np.float32]:
            scaling, warper = self.scalings[lesion], self.warpers[lesion]
            return np.stack([scaling.apply(warper(warp, size)) for warp in self._real_warps(lesion)])

        return tensor(np.concatenate(self._each(reals), axis=1)).to(self.device)

    def _real_warps(self, lesion: int) -> list[Warp]:
        """The lesion as it is, then the mild deformations of the other real images; the same at every scale."""
        rng = np.random.default_rng((self.seed + lesion, 2))
        strengths = [0.0] + [self.settings.real_strength] * (self.settings.reals - 1)
        return [draw_warp(rng, self.dims, strength) for strength in strengths]

    def _real_starts(self) -> Tensor:
        """`[R, K 2, *first size]`, the coarse images of the reals."""
        return self._coarse([self._real_warps(k) for k in range(self.lesions)])

    def _starts(self, count: int) -> Tensor:
        """`[count, K 2, *first size]`, deformed coarse lesions; the same at every scale."""
        warps = []
        for k in range(self.lesions):
            rng = np.random.default_rng((self.seed + k, 1))
            warps.append([draw_warp(rng, self.dims, self.settings.start_strength) for _ in range(count)])
        return self._coarse(warps)

    def _coarse(self, warps: list[list[Warp]]) -> Tensor:
        def coarse(lesion: int) -> Tensor:
            told = self.warpers[lesion], self.scalings[lesion], self.settings, self.sizes[0]
            return torch.cat([start_image(*told, warp) for warp in warps[lesion]])

        return torch.cat(self._each(coarse), dim=1).to(self.device)

    def _each(self, make: Callable[[int], T]) -> list[T]:
        """What `make` gives for every lesion, several at a time: each has its own random stream."""
        if self.lesions == 1:
            return [make(0)]
        with ThreadPoolExecutor(min(self.lesions, os.cpu_count() or 1)) as pool:
            return list(pool.map(make, range(self.lesions)))

    def _lower(self, chain: Chain, size: tuple[int, ...]) -> Tensor:
        """`[cache, K 2, *size]`, images of the scale below, from starts and new noise."""
        scale = len(chain.nets)
        count = max(self.settings.cache, 1)
        starts = self._starts(count)
        streams = [generator_for(self.device, self.seed + k, scale, -2) for k in range(self.lesions)]
        images = []
        for start in starts.split(4):
            noises = []
            for below in self.sizes[:scale]:
                shape = (len(start), CHANNELS, *below)
                drawn = [torch.randn(shape, generator=g, device=self.device) for g in streams]
                noises.append(torch.cat(drawn, dim=1))
            images.append(chain(start, noises))
        lower = torch.cat(images)
        assert tuple(lower.shape[2:]) == size
        return lower
