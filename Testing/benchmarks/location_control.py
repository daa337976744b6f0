"""Do filled places tell true from sham? `python -m Testing.benchmarks.location_control --help`.

A small network and a logistic rule on radial and texture features see only the inside of an erasure and 1 mm around it,
or all that the erasing touched (within the lung), centred: no position, no surroundings. Folds by patient. Also writes
RUNS/places.json: where pictures lie in their slice, for patients who also have a volume in lidc_nodule_voi_hu that fits
the picture exactly.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import nn

from HiResMedSynthLib.patient_split import fold_of
from HiResMedSynthLib.placement.surroundings import bright
from Training.erased_pairs import RING_MM, VESSEL_MM, ErasedPatch, Erasure, paint
from Training.erased_store import load_erased
from Training.location_data import SIDE, load_patches
from Training.nodule_source import nodules

PIXEL_MM, INPUT_PX = 0.8, 32
SHAMS_EACH = 4
AROUND_MM = 4.0  # beyond what is seen: room for the smoothing that finds vessels
FOLDS, EPOCHS, RATE = 5, 12, 3e-3
RIDGE, NEWTON = 30.0, 12
BOOTSTRAPS = 2000
SAME = 0.995  # correlation of a volume's slice with the picture


def look(
    item: ErasedPatch, place: Erasure, *, ring_mm: float, vessels: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The inside of an erasure (0 elsewhere) `[INPUT_PX, INPUT_PX]` in units of 100 HU about -860, and features."""
    spacing = item.patch.spacing_mm
    hu = item.patch.hu.copy()
    paint(hu, *((place,) if place is item.true else (item.true, place)))
    mask = np.zeros(hu.shape, dtype=bool)
    mask[place.rows, place.columns] = True
    reach = round((ring_mm + AROUND_MM) / spacing)
    part = tuple(slice(max(0, int(at.min()) - reach), int(at.max()) + reach + 1) for at in (place.rows, place.columns))
    hu, mask, lung = hu[part], mask[part], item.patch.lung[part]
    seen = (distance_transform_edt(~mask, sampling=spacing) <= ring_mm) & lung
    if not vessels and (dense := bright(hu, spacing)).any():
        seen &= mask | (distance_transform_edt(~dense, sampling=spacing) > VESSEL_MM)
    value = np.where(seen, (hu + 860) / 100, 0).astype(np.float32)
    scale = PIXEL_MM / spacing
    shift = [at - cut.start - (INPUT_PX - 1) / 2 * scale for at, cut in zip(place.centre, part, strict=True)]
    matrix = np.array([[scale, 0, shift[1]], [0, scale, shift[0]]], dtype=np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(value, matrix, (INPUT_PX, INPUT_PX), flags=flags)
    depth = distance_transform_edt(seen, sampling=spacing)
    shells = [seen & (depth > low) & (depth <= high) for low, high in ((0, 1), (1, 2), (2, 3), (3, 99))]
    steps = [np.abs(np.diff(value, axis=axis))[np.diff(seen.astype(int), axis=axis) == 0] for axis in (0, 1)]
    inside = value[seen]
    features = [
        *(value[shell].mean() if shell.any() else inside.mean() for shell in shells), inside.std(), inside.min(),
        inside.max(), np.percentile(inside, 90), np.log(seen.sum()),
        *(float(step.sum() / seen.sum()) for step in steps),
    ]  # fmt: skip
    return picture, np.array(features, dtype=np.float32)


def auc(scores: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """Area under the curve."""
    order = scores.argsort()
    rank = np.empty(len(scores))
    rank[order] = np.arange(1, len(scores) + 1)
    return float((rank[true].sum() - true.sum() * (true.sum() + 1) / 2) / (true.sum() * (~true).sum()))


def out_of_fold(inputs: NDArray[np.float32], true: NDArray[np.bool_], fold: NDArray[np.int64], *, seed: int) -> Any:
    """Scores of each example by a model that never saw its patient: network for pictures, logistic for features."""
    scores = np.zeros(len(true))
    scored = logistic_scores if inputs.ndim == 2 else network_scores
    for held in range(FOLDS):
        scores[fold == held] = scored(inputs[fold != held], true[fold != held], inputs[fold == held], seed=seed)
    return scores


def logistic_scores(
    inputs: NDArray[np.float32], true: NDArray[np.bool_], others: NDArray[np.float32], *, seed: int
) -> Any:
    """Scores of `others` by a ridge logistic rule on features and their squares, learned to its optimum (no seed)."""
    del seed
    mean, spread = inputs.mean(0), inputs.std(0) + 1e-6

    def terms(of: NDArray[np.float32]) -> NDArray[np.float64]:
        unit = np.clip((of - mean) / spread, -4, 4).astype(np.float64)
        return np.hstack([unit, unit**2, np.ones((len(of), 1))])

    data, weight = terms(inputs), np.where(true, (~true).sum() / true.sum(), 1.0)
    ridge = np.diag([RIDGE] * (data.shape[1] - 1) + [0.0])
    rule = np.zeros(data.shape[1])
    for _ in range(NEWTON):
        said = 1 / (1 + np.exp(-data @ rule))
        slope = data.T @ (weight * (true - said)) - ridge @ rule
        rule += np.linalg.solve((data.T * (weight * said * (1 - said))) @ data + ridge, slope)
    return terms(others) @ rule


def network_scores(
    inputs: NDArray[np.float32], true: NDArray[np.bool_], others: NDArray[np.float32], *, seed: int
) -> Any:
    """Scores of `others` by three convolutions."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    data, wanted = torch.from_numpy(inputs)[:, None], torch.from_numpy(true.astype(np.float32))
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3),
        nn.Linear(32, 1),
    )  # fmt: skip
    weight = torch.tensor([SHAMS_EACH], dtype=torch.float32)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for chosen in np.array_split(rng.permutation(len(true)), max(1, len(true) // 64)):
            batch = torch.rot90(data[chosen], int(rng.integers(4)), (2, 3))
            said = model(batch.flip(3) if rng.random() < 0.5 else batch)[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(said, wanted[chosen], pos_weight=weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()
    with torch.inference_mode():
        return model(torch.from_numpy(others)[:, None])[:, 0].numpy()


def control(items: list[ErasedPatch], *, ring_mm: float, vessels: bool = True) -> dict[str, Any]:
    """AUC with its 95 % interval (bootstrap of patients) of both classifiers."""
    rng = np.random.default_rng(4)
    pictures, features, true, patient = [], [], [], []
    for index, item in enumerate(items):
        chosen = rng.choice(len(item.shams), min(SHAMS_EACH, len(item.shams)), replace=False)
        for number, place in enumerate([item.true, *(item.shams[k] for k in chosen)]):
            picture, told = look(item, place, ring_mm=ring_mm, vessels=vessels)
            pictures.append(picture)
            features.append(told)
            true.append(number == 0)
            patient.append(index)
    labels, owners = np.array(true), np.array(patient)
    fold = np.array([fold_of(item.patch.patient_id + "control", FOLDS) for item in items])[owners]
    groups = [np.flatnonzero(owners == index) for index in range(len(items))]
    found: dict[str, Any] = {"patients": len(items), "examples": len(labels)}
    for name, inputs in (("network", np.stack(pictures)), ("features", np.stack(features))):
        scores = out_of_fold(inputs, labels, fold, seed=1)
        draws = []
        for _ in range(BOOTSTRAPS):
            chosen = np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))])
            draws.append(auc(scores[chosen] + rng.normal(0, 1e-9, len(chosen)), labels[chosen]))
        found[name] = [round(float(v), 3) for v in (auc(scores, labels), *np.percentile(draws, [2.5, 97.5]))]
    return found


def places(data: Path) -> tuple[list[tuple[str, int, int, float, int]], dict[str, Any]]:
    """[patient, column, row, z, scan] of pictures found in volumes, and the error of the grey match in HU."""
    folder = data / "lidc_nodule_patches"
    with (folder / "patches.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["patient_id"]: row for row in csv.DictReader(stream)}
    sheets = {name: np.asarray(Image.open(folder / name)) for name in sorted({r["sheet"] for r in rows.values()})}
    patches = {patch.patient_id: patch for patch in load_patches(folder)[0]}
    found, errors = [], []
    for nodule in nodules(data / "lidc_nodule_voi_hu"):
        row = rows.get(nodule.patient_id)
        if row is None or max(nodule.hu.shape[1:]) > SIDE or nodule.patient_id not in patches:
            continue
        if "1" in (nodule.row["x_flip"], nodule.row["y_flip"]):
            continue
        top, left = int(row["row0"]), int(row["col0"])
        grey = sheets[row["sheet"]][top : top + SIDE, left : left + SIDE].astype(np.float32)
        fits = [
            cv2.matchTemplate(grey, np.clip(part, -1024, 2000).astype(np.float32), cv2.TM_CCOEFF_NORMED)
            for part in nodule.hu
        ]
        best = int(np.argmax([fit.max() for fit in fits]))
        if fits[best].max() < SAME:
            continue
        y, x = np.unravel_index(int(fits[best].argmax()), fits[best].shape)
        told = nodule.row
        z_mm = float(told["z0_mm"]) + best * float(told["dz_mm"])
        found.append(
            (nodule.patient_id, int(told["col0"]) - int(x), int(told["row0"]) - int(y), z_mm, int(told["scan"]))
        )
        hu = nodule.hu[best]
        error = patches[nodule.patient_id].hu[y : y + hu.shape[0], x : x + hu.shape[1]] - hu
        for name, part in (("lung", (hu > -950) & (hu < -700)), ("soft tissue", (hu > -50) & (hu < 100))):
            if part.sum() > 30:
                errors.append((name, float(np.median(error[part]))))
    told_errors = {
        name: np.percentile([e for n, e in errors if n == name], [5, 25, 50, 75, 95]).round(0).tolist()
        for name in ("lung", "soft tissue")
    }
    return found, {
        "pictures found in volumes": len(found),
        "grey match error, HU, percentiles 5 25 50 75 95": told_errors,
    }


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the shared data.")
@click.option("--runs", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the runs.")
def main(data: Path, runs: Path) -> None:
    """Measures what the filled insides tell, and finds the pictures' places."""
    torch.set_num_threads(1)
    items, left_out = load_erased(data / "lidc_nodule_patches", runs / "erased.npz")
    found, errors = places(data)
    (runs / "places.json").write_text(json.dumps(found), encoding="utf-8")
    told: dict[str, Any] = {"usable": len(items), "left out": left_out, **errors}
    seen = {
        "inside": (0.0, True), "inside + 1 mm": (1.0, True), "inside + 1 mm, vessels left out": (1.0, False),
        "all that was touched + 1 mm, vessels left out": (RING_MM + 1.0, False),
    }  # fmt: skip
    for name, (ring_mm, vessels) in seen.items():
        told[name] = control(items, ring_mm=ring_mm, vessels=vessels)
        click.echo(f"{name}: {told[name]}")
    (runs / "control.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    click.echo(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
