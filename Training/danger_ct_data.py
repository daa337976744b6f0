"""The task of the CT danger network: slices with disease and hardship painted in, a loss that knows what is open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.patient_split import held_out_patients
from HiResMedSynthLib.placement.network import NetworkPlan, to_unit
from HiResMedSynthLib.placement.network_ct import CLASSES, FACTS, TASK
from Training.danger_ct_augment import PADDING_HU, hardened, warped
from Training.danger_ct_disease import draw_disease
from Training.danger_ct_labels import ALLOWED, ANY, LUNG
from Training.danger_ct_sources import LabelledSlice, read_sources
from Training.picture_loop import PictureBatch

SIDE = 128
DISEASED = 0.55  # share of pictures
MOSAICS = 0.15  # share of pictures that show four nodule crops instead of a slice
MEASURED = 24  # pictures of each side
# of the loss by label: the airways are few pixels; sets count less than a known class
WEIGHTS = (0.5, 0.8, 1.5, 1.2, 4.0, 1.2, 0.8, 0.8, 1.0, 0.0)
NOBODY = "nobody"


class DangerTask:
    """Chest CT slices of two sides: patients to learn from, patients held out.

    Args:
        training, held_out: slices of each side.
        batch: pictures a step.
        seed: of the measured pictures.
    """

    def __init__(
        self, training: Sequence[LabelledSlice], held_out: Sequence[LabelledSlice], *, batch: int, seed: int
    ) -> None:
        self.batch, self.seed = batch, seed
        self.plan = NetworkPlan(task=TASK, classes=CLASSES, facts=FACTS)
        self.sides = [_Side(training), _Side(held_out)]
        self.counts: dict[str, Any] = {
            "slices to learn from": sum(not one.crop for one in training),
            "nodule crop slices to learn from": sum(one.crop for one in training),
            "patients to learn from": len({one.patient for one in training}),
            "patients held out": len({one.patient for one in held_out}),
            "slices by folder": dict(Counter(one.folder for one in training)),
        }

    def constants(self) -> dict[str, float]:
        """The grid and the window."""
        return dict(FACTS)

    def train_batch(self, rng: np.random.Generator) -> PictureBatch:
        """A batch of changed slices of the training side."""
        return _batch([self.sides[0].draw(rng) for _ in range(self.batch)])

    def loss(self, logits: Tensor, batch: PictureBatch) -> Tensor:
        """Weighted cross entropy; where a label allows several classes, of their summed likelihood."""
        labels = batch.targets["labels"].long()
        allowed = torch.as_tensor(ALLOWED, device=logits.device)[labels].permute(0, 3, 1, 2)  # [B, class, row, column]
        chances = torch.log_softmax(logits, dim=1).masked_fill(~allowed, -torch.inf)
        weights = torch.tensor(WEIGHTS, device=logits.device)[labels]
        error = -torch.logsumexp(chances, dim=1)
        return (weights * error).sum() / weights.sum().clamp_min(1)

    def measured_batches(self, *, held_out: bool) -> list[PictureBatch]:
        """Pictures of one side, changed as in training, the same each time."""
        side = self.sides[int(held_out)] if self.sides[1].patients else self.sides[0]
        rng = np.random.default_rng((self.seed, 77, int(held_out)))
        pictures = [side.draw(rng) for _ in range(MEASURED)]
        return [_batch(pictures[start : start + self.batch]) for start in range(0, MEASURED, self.batch)]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Eight held-out pictures: the slice, its labels, what the network says."""
        side = self.sides[1] if self.sides[1].patients else self.sides[0]
        rng = np.random.default_rng(seed)
        batch = _batch([side.draw(rng) for _ in range(8)])
        with torch.no_grad():
            said = network(batch.picture.to(next(network.parameters()).device)).argmax(dim=1).cpu().numpy()
        grey = ((batch.picture[:, 0].numpy() + 1) * 127.5).astype(np.uint8)
        shades = np.array([0, 60, 255, 140, 200, 100, 40, 40, 150, 20], np.uint8)
        rows = [grey, shades[batch.targets["labels"].numpy()], shades[said]]
        return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


class _Side:
    """Slices of one side, drawn by patient: each weighs as the root of the number of its slices."""

    def __init__(self, slices: Sequence[LabelledSlice]) -> None:
        self.slices: dict[str, list[LabelledSlice]] = {}
        for one in slices:
            if not one.crop:
                self.slices.setdefault(one.patient, []).append(one)
        self.crops = [one for one in slices if one.crop]
        self.patients = len(self.slices) + len({one.patient for one in self.crops})
        self.names = sorted(self.slices)
        weights = np.sqrt([len(self.slices[name]) for name in self.names])
        self.shares = weights / weights.sum() if len(weights) else weights

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """(HU, labels) [SIDE, SIDE] of one picture."""
        if self.crops and (not self.names or rng.random() < MOSAICS):
            hu, labels = self._mosaic(rng)
        else:
            patient = self.slices[str(rng.choice(self.names, p=self.shares))]
            one = patient[int(rng.integers(len(patient)))]
            hu, labels = one.hu.astype(np.float32), one.labels
            if rng.random() < DISEASED:
                hu = draw_disease(hu, labels, rng, mm=FACTS["pixel_mm"])
            hu, labels = warped(hu, labels, rng, side=SIDE)
        return hardened(hu, labels, rng)

    def _mosaic(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Four crops, each in the middle of a frame of air, as a crop is shown to the finished network."""
        half = SIDE // 2
        hu = np.full((SIDE, SIDE), PADDING_HU, dtype=np.float32)
        labels = np.full((SIDE, SIDE), ANY, dtype=np.uint8)
        for corner in range(4):
            one = self.crops[int(rng.integers(len(self.crops)))]
            picture, classes = one.hu.astype(np.float32), one.labels
            turns = int(rng.integers(4))
            picture, classes = np.rot90(picture, turns), np.rot90(classes, turns)
            if rng.random() < 0.5:
                picture, classes = picture[:, ::-1], classes[:, ::-1]
            if rng.random() < 0.5:
                zoom = float(np.exp(rng.uniform(-0.25, 0.25)))
                size = (max(8, round(picture.shape[1] * zoom)), max(8, round(picture.shape[0] * zoom)))
                picture = cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_LINEAR)
                classes = cv2.resize(np.ascontiguousarray(classes), size, interpolation=cv2.INTER_NEAREST)
            rows, columns = (min(length, half) for length in picture.shape)
            top = (half - rows) // 2 + half * (corner // 2)
            left = (half - columns) // 2 + half * (corner % 2)
            place = (slice(top, top + rows), slice(left, left + columns))
            hu[place], labels[place] = picture[:rows, :columns], classes[:rows, :columns]
        return hu, labels


def load_task(data: Sequence[Path], *, batch: int, hold_out: Sequence[str] = (), seed: int = 1) -> DangerTask:
    """The task of these folders.

    Args:
        data: folders as Training/danger_ct_sources.py describes them.
        batch: pictures a step.
        hold_out: patients, or names of folders, to hold out; "nobody" for none; empty: by the hash of the patient.
        seed: of the measured pictures.

    Raises:
        ReadError: a folder without CT, no lung in any label, one patient only, or nobody on one side.
    """
    slices = read_sources(data)
    if not any((one.labels == LUNG).any() for one in slices):
        raise ReadError("no label holds lung", where=data[0], remedy="Give chest CT, or label the lung.")
    patients = {one.patient for one in slices}
    if len(patients) < 2:
        raise ReadError(
            f"all slices are of one patient ({next(iter(patients))})", where=data[0],
            remedy="Add a second patient's CT: one to learn from and one to measure on.",
        )  # fmt: skip
    if NOBODY in hold_out:
        return DangerTask(slices, (), batch=batch, seed=seed)
    known = patients | {one.folder for one in slices}
    unknown = sorted(set(hold_out) - known)
    if unknown:
        raise ReadError(
            f"nobody here is called {', '.join(unknown)}", where=data[0],
            remedy=f"Hold out patients or folders such as {', '.join(sorted(known)[:3])}.",
        )  # fmt: skip
    chosen = {
        one.patient for one in slices if (one.patient in hold_out or one.folder in hold_out)
    } if hold_out else held_out_patients(patients)  # fmt: skip
    training = [one for one in slices if one.patient not in chosen]
    held_out = [one for one in slices if one.patient in chosen]
    if not held_out or not any((one.labels == LUNG).any() for one in training):
        raise ReadError(
            "one side of the split has no patient with lung", where=data[0],
            remedy="Say with --hold-out whom to measure on.",
        )  # fmt: skip
    return DangerTask(training, held_out, batch=batch, seed=seed)


def _batch(pictures: list[tuple[NDArray[np.float32], NDArray[np.uint8]]]) -> PictureBatch:
    return PictureBatch(
        picture=torch.from_numpy(np.stack([to_unit(hu, FACTS)[np.newaxis] for hu, _ in pictures])),
        targets={"labels": torch.from_numpy(np.stack([labels for _, labels in pictures]))},
    )
