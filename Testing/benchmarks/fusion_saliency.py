"""What the small network goes by: taught real and `better`, it is shown other pictures of the patients held out."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from HiResMedSynthLib.evaluation import machine_reader
from HiResMedSynthLib.evaluation.reader_training import read
from HiResMedSynthLib.evaluation.reading import FOLDS, dealt, labels, patients_of, reading_of

Grids = NDArray[np.float32]  # `[n, 2, m, m, m]`, HU and share of lesion
SEED = 1
LESION_SHARE, RIM = 0.3, 2  # voxels of that share and so many around are the lesion
SHELLS = (0.1, 0.19, 0.29, 0.43)  # of the window's edge, from its middle


def table(seen: dict[str, Grids], patients: Sequence[str], *, epochs: int = 42) -> list[str]:
    """AUC against real of each way, of the lesion alone and of its surroundings alone; saliency by shells.

    Args:
        seen: "real", "better" and others, a pair at the same place in each.
        patients: of each pair.
        epochs: of the network, at most.
    """
    import torch

    shown = dict(seen)
    for way in ("real", "better"):
        lesion = np.stack([binary_dilation(share > LESION_SHARE, iterations=RIM) for share in seen[way][:, 1]])[:, None]
        shown |= {f"{way}, lesion alone": np.where(lesion, seen[way], 0).astype(np.float32),
                  f"{way}, surroundings alone": np.where(lesion, 0, seen[way]).astype(np.float32)}  # fmt: skip
    networks = []

    def caught(network: torch.nn.Module, grids: torch.Tensor) -> NDArray[np.float64]:
        networks.append(network)
        return read(network, grids)

    with mock.patch.object(machine_reader, "read", caught):
        machine_reader.cnn_reader(seen["real"], seen["better"], patients, patients, SEED, epochs=epochs)
    groups, label = patients_of(seen["real"], seen["better"], patients, patients), labels(seen["real"], seen["better"])
    fold = dealt(groups, label, FOLDS, np.random.default_rng(SEED))
    scores = {way: np.empty(len(patients)) for way in shown}
    maps = []
    for held, network in enumerate(networks):
        at = np.flatnonzero(fold[label] == held)
        for way, grids in shown.items():
            scores[way][at] = read(network, machine_reader._with_detail(torch.from_numpy(grids[at])))
        for way in ("real", "better"):
            given = machine_reader._with_detail(torch.from_numpy(seen[way][at])).requires_grad_(True)
            (slope,) = torch.autograd.grad(network(given).sum(), given)
            maps.append((slope * given).detach().abs().sum(dim=1).numpy())
    lines = ["", "| shown | AUC against real (95 %) |", "| --- | --- |"]
    for way in shown:
        kind = way.partition(", ")[2]
        if way.startswith("real"):
            continue
        both = np.concatenate([scores[f"real, {kind}" if kind else "real"], scores[way]])
        reading = reading_of([(fold, both)], groups, label)
        low, high = reading.interval()
        lines.append(f"| {way} | {reading.auc:.2f} ({low:.2f} to {high:.2f}) |")
    size = seen["real"].shape[-1]
    middle = (np.indices((size,) * 3) - (size - 1) / 2) / size
    shell = np.digitize(np.linalg.norm(middle, axis=0), SHELLS)
    mean = np.stack([np.concatenate(maps)[:, shell == k].mean(axis=1) for k in range(len(SHELLS) + 1)], axis=1)
    shares = (mean / mean.sum(axis=1, keepdims=True)).mean(axis=0)
    words = ", ".join(f"{share:.0%}" for share in shares)
    return [*lines, "", f"gradient times input a voxel, by shells that end at {SHELLS} of the edge: {words}"]
