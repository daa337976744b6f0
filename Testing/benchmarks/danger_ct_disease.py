"""Rule and network where the rule fails: simulated disease with known truth, and real disease outlined by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.chest_by_slice import find_regions_by_both, find_regions_by_network
from HiResMedSynthLib.placement.danger_map import LUNG_CLASSES, DangerMap
from HiResMedSynthLib.placement.lungs_ct import find_chest_regions
from HiResMedSynthLib.placement.network import PlacementNetwork
from Testing.benchmarks.danger_ct_measures import Ways, as_image, dice, interval, true_map
from Training.danger_ct_disease import KINDS, SHARES, draw_disease
from Training.danger_ct_labels import ANY, LUNG, OUTSIDE, smoothed
from Training.danger_ct_outlines import A0001, SBU, Outline
from Training.danger_ct_sources import read_stacks, stored_slices

SEED = 20261127  # of the simulated disease; training draws from other seeds
PER_SLICE = 2  # diseases a slice
BORDER_MM = 3.0
ERRORS = ("cavity", "mask", "mask off the border", "forbidden permitted", "permitted forbidden")


def simulated(data: Path, network: PlacementNetwork, folders: tuple[str, ...], *, fold: int) -> list[dict[str, Any]]:
    """(b) Rule and network on healthy slices never seen, with disease painted in: errors slice by slice."""
    rows = []
    rng = np.random.default_rng((SEED, fold))
    ways = Ways(network)
    for name, patient, hu, labels, spacing in healthy_slices(data, folders):
        for _ in range(PER_SLICE):
            kind = str(rng.choice(KINDS, p=SHARES))
            ill = draw_disease(hu.astype(np.float32), labels, rng, mm=spacing[1], kind=kind)
            noise = cv2.GaussianBlur(rng.standard_normal(hu.shape).astype(np.float32), (0, 0), sigmaX=0.7)
            ill = np.rint(ill + rng.uniform(0, 30) * noise / noise.std()).astype(np.int16)
            truth = true_map(ill[np.newaxis], labels[np.newaxis], spacing)
            row: dict[str, Any] = {"slice": name, "patient": patient, "kind": kind}
            for way, found in ways.maps(as_image(ill[np.newaxis], spacing)).items():
                row[way] = errors(found, truth, labels[np.newaxis], spacing[1])
            rows.append(row)
    return rows


def errors(found: DangerMap | None, truth: DangerMap, labels: NDArray[np.uint8], mm: float) -> dict[str, float]:
    """Shares of the pleural cavity and of the tissues that are wrong.

    "cavity": cavity not called lung, or the reverse. "mask": forbidden called permitted or the reverse; the same off
    the border by `BORDER_MM`, for the border of these labels is the rule's own. The error rates count every pixel.
    """
    known, cavity = labels != ANY, labels == LUNG
    nothing = np.zeros(labels.shape, dtype=bool)
    permitted = (found.labels == 0) if found is not None else nothing
    lungs = found.region(LUNG_CLASSES) if found is not None else nothing
    true_permitted = truth.labels == 0
    missed, lost = permitted & ~true_permitted & known, ~permitted & true_permitted & known
    size = 2 * round(BORDER_MM / mm) + 1
    kernel = np.ones((size, size), np.uint8)
    edge = np.stack([cv2.dilate(c, kernel) > cv2.erode(c, kernel) for c in cavity.astype(np.uint8)])
    area = max(int(cavity.sum()), 1)
    return {
        "cavity": float(((lungs != cavity) & known).sum() / area),
        "mask": float((missed | lost).sum() / area),
        "mask off the border": float(((missed | lost) & ~edge).sum() / area),
        "forbidden permitted": float(missed.sum() / max((known & (labels != OUTSIDE) & ~true_permitted).sum(), 1)),
        "permitted forbidden": float(lost.sum() / max((known & true_permitted).sum(), 1)),
    }


def healthy_slices(
    data: Path, folders: tuple[str, ...]
) -> Iterator[tuple[str, str, Any, Any, tuple[float, float, float]]]:
    """Slices with lung and nothing doubtful in it, at least 5 mm apart."""
    for folder in folders:
        for stack in read_stacks(data / folder):
            if stack.by_hand:
                continue
            step = max(1, round(7.5 / stack.spacing_mm[0])) if len(stack.hu) > 50 else 1
            for index in range(0, len(stack.hu), step):
                labels = stack.labels[index]
                area = (labels == LUNG).sum() * stack.spacing_mm[1] * stack.spacing_mm[2]
                doubt = (labels == ANY).sum() * stack.spacing_mm[1] * stack.spacing_mm[2]
                if area > 4000 and doubt < 1000:
                    yield stack.names[index], stack.patient, stack.hu[index], labels, stack.spacing_mm


def paired(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the ways and Wilcoxon's signed rank test, over all and by kind and patient."""
    from scipy.stats import wilcoxon

    result: dict[str, Any] = {}
    groups = {"all": rows}
    for key in ("kind", "patient"):
        for value in sorted({row[key] for row in rows}):
            groups[value] = [row for row in rows if row[key] == value]
    for name, group in groups.items():
        entry: dict[str, Any] = {"n": len(group), "patients": len({row["patient"] for row in group})}
        for error in ERRORS:
            rule = np.array([row["rule"][error] for row in group])
            told: dict[str, Any] = {"rule": interval(rule)}
            for way in ("network", "both"):
                learned = np.array([row[way][error] for row in group])
                told |= {way: interval(learned), f"{way} better": int((learned < rule).sum())}
                if len(group) > 5 and (rule != learned).any():
                    told[f"p, {way}"] = float(wilcoxon(learned, rule).pvalue)
            entry[error] = told
        result[name] = entry
    return result


def diseased(data: Path, network: PlacementNetwork) -> list[dict[str, Any]]:
    """(b) Rule and network on real diseased slices against outlines by hand (network A saw none of them)."""
    rows = []
    ways = Ways(network)
    for outline, hu, spacing in diseased_slices(data):
        cavity = outline.mask(hu.shape)
        counted = np.zeros(hu.shape, dtype=bool)
        counted[slice(*outline.rows)] = True
        row: dict[str, Any] = {"patient": outline.patient, "what": outline.what}
        aerated = cavity & (smoothed(hu, spacing[1]) < -500)  # what a nodule may lie in, ground glass too
        inner = cv2.erode(aerated.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        outer = cv2.dilate(cavity.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0  # off the outline's own error
        image = as_image(hu[np.newaxis], spacing)
        for way, found in ways.maps(image).items():
            permitted = found.labels[0] == 0 if found is not None else np.zeros(hu.shape, dtype=bool)
            row[way] = {
                "lung Dice": dice(_lungs(way, hu, spacing, network), cavity, counted),
                "aerated lung forbidden": float((~permitted)[inner & counted].mean()),
                "outside permitted, mm2": float((permitted & outer & counted).sum() * spacing[1] * spacing[2]),
            }
        rows.append(row)
    return rows


def _lungs(way: str, hu: NDArray[Any], spacing: tuple[float, float, float], network: PlacementNetwork) -> Any:
    if way == "rule":
        return find_chest_regions(hu[np.newaxis], spacing_mm=spacing).lungs[0]
    find = find_regions_by_both if way == "both" else find_regions_by_network
    return find(hu[np.newaxis], spacing_mm=spacing, network=network).lungs[0]


def diseased_slices(data: Path) -> Iterator[tuple[Outline, NDArray[np.int16], tuple[float, float, float]]]:
    """(outline, HU [row, column], spacing) of each outlined slice."""
    for index, _, hu, mm in stored_slices(data / "covid_sbu_slices" / "slices.npz"):
        if index in SBU:
            yield SBU[index], hu, (5.0, mm, mm)
    for stack in read_stacks(data / "dicom_ct_lung_dx_a0001"):
        for height, outline in A0001.items():
            yield outline, stack.hu[round((height + 364) / 5)], stack.spacing_mm  # heights -364..-169 mm
