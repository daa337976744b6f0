"""How the machine reader's networks, in 2-D and 3-D, are trained and asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.evaluation.reading import BATCH, FOLDS, balanced_batches, class_weights, dealt

if TYPE_CHECKING:
    from torch import Tensor, nn

RATE, DECAY = 3e-3, 0.02


def taught_in_folds(
    make: Callable[[], nn.Module],
    grids: Tensor,
    groups: NDArray[np.str_],
    label: NDArray[np.bool_],
    fold: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    epochs: int,
    patience: int,
    turned: Callable[[Tensor, np.random.Generator], Tensor],
) -> Iterator[tuple[NDArray[np.int64], nn.Module]]:
    """(numbers of those held out, a network that was taught by the others) of each fold.

    Args:
        make: a new network.
        grids, groups, label, fold: of all; a fifth of the other patients of a fold says when to stop.
        rng: of weights, order and turns.
        epochs, patience, turned: see `teach`.
    """
    import torch

    for held in range(FOLDS):
        train = np.flatnonzero(fold != held)
        inner = dealt(groups[train], label[train], FOLDS, rng)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            network = make().to(grids.device)
            teach(
                network, grids, label, train[inner > 0], train[inner == 0], rng,
                epochs=epochs, patience=patience, turned=turned,
            )  # fmt: skip
        yield np.flatnonzero(fold == held), network


def teach(
    network: nn.Module,
    grids: Tensor,
    label: NDArray[np.bool_],
    train: NDArray[np.int64],
    check: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    epochs: int,
    patience: int,
    turned: Callable[[Tensor, np.random.Generator], Tensor],
) -> None:
    """Trains; the weights of the lowest loss on `check` stay.

    Args:
        network: from grids to one score each, high = real.
        grids, label: all of them, true = real.
        train, check: numbers of those to learn from and to choose by.
        rng: of order and turns.
        epochs, patience: at most; without a better loss before it stops.
        turned: a batch as it might have been seen too.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    target = torch.from_numpy(label.astype(np.float32)).to(grids.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    best, waited, kept = np.inf, 0, {name: value.clone() for name, value in network.state_dict().items()}
    weight = class_weights(label[check])
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        network.train()
        for batch in balanced_batches(train, label, rng):
            at = torch.from_numpy(batch).to(grids.device)
            scores = network(turned(grids[at], rng))[:, 0]
            optimiser.zero_grad()
            binary_cross_entropy_with_logits(scores, target[at]).backward()
            optimiser.step()
        score = read(network, grids[torch.from_numpy(check).to(grids.device)])
        loss = float(weight @ np.logaddexp(0.0, np.where(label[check], -score, score)))
        waited += 1
        if loss < best:
            best, waited, kept = loss, 0, {name: value.clone() for name, value in network.state_dict().items()}
        if waited >= patience:
            break
    network.load_state_dict(kept)


def read(network: nn.Module, grids: Tensor) -> NDArray[np.float64]:
    """The mean score over the two mirror images in a row."""
    import torch

    network.eval()
    with torch.no_grad():
        scores = [network(part) + network(part.flip(-1)) for part in grids.split(BATCH)]
    return np.asarray(torch.cat(scores)[:, 0].double().cpu().numpy() / 2)
