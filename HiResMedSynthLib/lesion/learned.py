"""The learned generator: new lesions by flow matching, of a wanted type, diameter and spiculation.

It was trained on the standard grid (`lesion_grid`), turned into two channels of about unit scale: how much denser than
a plain solid lesion the voxel is, and the matte. A sample has no source lesion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from HiResMedSynthLib.choices import LESION_TYPES, LesionType
from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.flow import guided, sample, sampling_times
from HiResMedSynthLib.lesion.flow_net import LesionFlowNet, LesionNetShape
from HiResMedSynthLib.lesion.lesion import Lesion, LesionCard
from HiResMedSynthLib.lesion.lesion_grid import from_grid
from HiResMedSynthLib.whole_tensors import read_tensors

FORMAT = "hiresmedsynth-lesion-flow-2"  # also the entry of the header that holds the description
SIDE = 32
PLAIN = 0.8  # premultiplied intensity of a plain solid lesion where alpha is 1
FINE = 0.1  # of texture; coarser differences (calcium) are compressed, so that the flow's noise drowns neither
DENSEST = 4.0  # of that channel: some 2700 HU beyond the plain lesion
DENSEST_TISSUE = 3.1  # F + 860, 1000 HU
USUAL_SPICULATION, USUAL_LOBULATION, USUAL_NOISE_HU = 1.7, 1.8, 6.0
STEPS, JUMP = 20, 0.95  # Euler's; the last goes from there to the data at once
HAZE = 0.02  # of alpha, that the network leaves around a lesion: the plainest mark of its samples
TRIES = 6


def to_channels(values: Tensor) -> Tensor:
    """The flow's channels from grids [B, 2, n, n, n] of premultiplied intensity and alpha."""
    intensity, alpha = values.unbind(1)
    return torch.stack([torch.asinh((intensity - PLAIN * alpha) / FINE), 2 * alpha - 1], dim=1)


def from_channels(channels: Tensor) -> Tensor:
    """The inverse of `to_channels`."""
    dense, matte = channels.unbind(1)
    dense = dense.clamp(-DENSEST, DENSEST)
    alpha = (matte + 1) / 2
    return torch.stack([FINE * torch.sinh(dense) + PLAIN * alpha, alpha], dim=1)


def possible(values: Tensor) -> Tensor:
    """Grids [B, 2, n, n, n] with alpha in 0..1, no haze, and tissue between lung and `DENSEST_TISSUE`."""
    intensity, alpha = values.unbind(1)
    clear = ((alpha - HAZE) / (1 - HAZE)).clamp(0, 1)
    intensity = (intensity * clear / alpha.clamp(min=HAZE)).clamp(min=0)
    return torch.stack([torch.minimum(intensity, DENSEST_TISSUE * clear), clear], dim=1)


def encode_properties(
    lesion_type: LesionType,
    diameter_mm: float,
    *,
    spiculation: float,
    lobulation: float,
    noise_hu: float,
    strict: bool = True,
) -> NDArray[np.float32]:
    """[10]: the type, one of five, then logarithmic diameter, ratings (1..5) and source noise about unit scale.

    The last tells whether the nodule is bank-worthy: a reader tells those from the laxer ones, blurred along z and cut
    out less surely (AUC .81), so that a network which isn't told makes neither.
    """
    kind = [float(name == lesion_type) for name in LESION_TYPES]
    return np.array(
        [*kind, math.log(diameter_mm / 9), (spiculation - 2) / 1.5, (lobulation - 2) / 1.5, math.log(noise_hu / 8),
         float(strict)],
        dtype=np.float32,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LearnedGenerator:
    """The network, ready to sample; `shortcut` are the Euler steps of a distilled one."""

    network: LesionFlowNet
    shortcut: tuple[float, ...] | None
    licence: str
    attribution: str

    def sample(
        self,
        lesion_type: LesionType,
        diameter_mm: float,
        *,
        rng: np.random.Generator,
        count: int = 1,
        spiculation: float = USUAL_SPICULATION,
        lobulation: float = USUAL_LOBULATION,
        noise_hu: float = USUAL_NOISE_HU,
    ) -> list[Lesion]:
        """`count` new lesions of that equivalent diameter; the same for the same state of `rng`.

        A sample in pieces or of no substance is drawn again.

        Raises:
            BankError: nothing usable came in several tries.
        """
        made: list[Lesion] = []
        wanted = encode_properties(
            lesion_type, diameter_mm, spiculation=spiculation, lobulation=lobulation, noise_hu=noise_hu
        )
        for _ in range(TRIES):
            for values in self.values(np.stack([wanted] * (count - len(made))), rng=rng):
                if is_whole(values):
                    made.append(
                        self._lesion(values, lesion_type, diameter_mm, number=len(made), spiculation=spiculation)
                    )
            if len(made) == count:
                return made
        raise BankError(
            "the learned generator made no usable lesion", remedy="Take another size, or --generator deform."
        )

    @torch.no_grad()
    def values(
        self,
        properties: NDArray[np.float32],
        *,
        rng: np.random.Generator,
        times: Tensor | None = None,
        device: str = "cpu",
    ) -> NDArray[np.float32]:
        """[B, 2, 32, 32, 32] raw samples in the standard grid for properties [B, 10].

        `times` are Heun's, in place of the model's own way.
        """
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(len(properties), 2, SIDE, SIDE, SIDE, generator=generator).to(device)
        velocity = guided(
            self.network.to(device),
            properties=torch.from_numpy(properties).to(device),
            level=noise.new_zeros(len(properties)),
        )
        own = sampling_times(STEPS, jump=JUMP) if self.shortcut is None else torch.tensor(self.shortcut)
        marks = own if times is None else times
        made = possible(from_channels(sample(velocity, noise, times=marks, heun=times is not None)))
        result: NDArray[np.float32] = made.cpu().numpy()
        return result

    def _lesion(
        self,
        values: NDArray[np.float32],
        lesion_type: LesionType,
        diameter_mm: float,
        *,
        number: int,
        spiculation: float,
    ) -> Lesion:
        volume = float(values[1].sum())  # of partly filled voxels too
        voxel_mm = diameter_mm / (6 * volume / math.pi) ** (1 / 3)
        card = LesionCard(
            name=f"learned-{lesion_type}-{round(diameter_mm):02d}mm-{number}", origin="learned generator",
            type=lesion_type, diameter_mm=round(diameter_mm, 1), licence=self.licence, attribution=self.attribution,
            spiculation=spiculation,
        )  # fmt: skip
        return from_grid(values, voxel_mm, card)


def is_whole(values: NDArray[np.float32]) -> bool:
    """Whether a sample [2, n, n, n] is one lesion: enough of it is solid, and nearly all in one piece."""
    from scipy.ndimage import label

    inside = values[1] > 0.5
    if inside.sum() < 200:
        return False
    pieces, _ = label(inside)
    return bool(np.bincount(pieces.ravel())[1:].max() > 0.97 * inside.sum())


def load_learned(path: Path) -> LearnedGenerator:
    """The generator of a release file.

    Raises:
        BankError: it is none, or damaged.
    """
    try:
        stored, described = read_tensors(path, FORMAT, "pt")
        network = LesionFlowNet(LesionNetShape.from_json(described["network"]))
        network.load_state_dict(stored)
        shortcut = tuple(described["shortcut"]) if described.get("shortcut") else None
        return LearnedGenerator(
            network=network.eval(),
            shortcut=shortcut,
            licence=described["licence"],
            attribution=described["attribution"],
        )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as problem:
        raise BankError(
            f"this is no learned lesion generator ({str(problem)[:120]})",
            where=path,
            remedy="Use the file of a release.",
        ) from None
