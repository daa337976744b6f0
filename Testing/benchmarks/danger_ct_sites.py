"""Real nodule sites that the mask would veto, and whether the mask moves with the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.danger_ct import danger_network_ct
from HiResMedSynthLib.placement.danger_map import PLEURA_MARGIN
from HiResMedSynthLib.placement.lungs_ct import SMOOTH_MM
from HiResMedSynthLib.placement.network import PlacementNetwork
from HiResMedSynthLib.placement.network_ct import AIR_HU
from Testing.benchmarks.danger_ct_disease import healthy_slices
from Testing.benchmarks.danger_ct_measures import MARGINS, Ways, as_image, dice, interval, wilson
from Training.erased_pairs import erase
from Training.nodule_source import SourceNodule, nodules

PARENCHYMA_HU = 200.0  # above the median of the lung around; more is a vessel, or the blurred border of one


def veto(data: Path, networks: dict[str, PlacementNetwork]) -> dict[str, Any]:
    """(c) Real nodule sites whose centre the mask forbids, the nodule erased; networks never saw the patient."""
    sites: dict[str, list[dict[str, Any]]] = {"rule": [], "network": [], "both": []}
    for nodule in nodules(data / "lidc_nodule_voi_hu"):
        odd = int(nodule.patient_id[-4:]) % 2 == 1
        if nodule.patient_id == "LIDC-IDRI-0001":
            continue  # network A learned from this patient
        spacing = nodule.spacing_mm
        erased = without_nodule(nodule)
        centre = tuple(round(value) for value in np.argwhere(nodule.majority).mean(axis=0))
        size = nodule.rating("diam_equiv_mm")
        for way, found in Ways(networks["A" if odd else "B"]).maps(as_image(erased, spacing)).items():
            label = int(found.labels[centre]) if found is not None else -1
            sites[way].append({
                "class": "no lung found" if found is None else found.names.get(label, "permitted"), "size": size,
                "patient": nodule.patient_id,
            })  # fmt: skip
    result: dict[str, Any] = {}
    for way, found_sites in sites.items():
        classes = [site["class"] for site in found_sites]
        vetoed = [name != "permitted" for name in classes]
        strict = [name not in ("permitted", PLEURA_MARGIN) for name in classes]
        result[way] = {
            "n": len(classes),
            "vetoed": wilson(sum(vetoed), len(classes)),
            "vetoed, pleura margin allowed": wilson(sum(strict), len(classes)),
            "by class": {name: classes.count(name) for name in sorted(set(classes), key=classes.count, reverse=True)},
        }
    only = [a["class"] != "permitted" for a in sites["rule"]], [b["class"] != "permitted" for b in sites["network"]]
    result["vetoed by the rule only"] = sum(a and not b for a, b in zip(*only, strict=True))
    result["vetoed by the network only"] = sum(b and not a for a, b in zip(*only, strict=True))
    return result


def without_nodule(nodule: SourceNodule) -> NDArray[np.int16]:
    """The nodule's volume with parenchyma in its place.

    What most readers marked lies in the lung and is filled. The rim around is filled where the nearest tissue beyond it
    is aerated; where that is chest wall, heart or a vessel, it stays. The fill comes from lung alone: one that reaches
    into the wall leaves a ramp of soft tissue where the nodule was, which is no vessel.
    """
    hu = np.maximum(nodule.hu, -1024).astype(np.float32)
    _, row_mm, column_mm = nodule.spacing_mm
    grown = np.stack([cv2.dilate(part, np.ones((5, 5), np.uint8)) > 0 for part in np.minimum(nodule.readers, 1)])
    smooth = gaussian_filter(hu, (0, SMOOTH_MM / row_mm, SMOOTH_MM / column_mm))
    air = smooth < AIR_HU
    parenchyma = smooth < min(AIR_HU, float(np.median(smooth[air & ~grown])) + PARENCHYMA_HU)  # without blurred borders
    nearest = distance_transform_edt(grown, sampling=nodule.spacing_mm, return_distances=False, return_indices=True)
    place = nodule.majority | (grown & air[tuple(nearest)])
    hu[place] = erase(
        hu, place, lung=air | grown, dense=~parenchyma & ~grown, spacing_mm=nodule.spacing_mm,
        rng=np.random.default_rng(int(nodule.row["index"])),
    )  # fmt: skip
    return np.rint(hu).astype(np.int16)


def moved(data: Path, network: PlacementNetwork, folders: tuple[str, ...]) -> dict[str, Any]:
    """(d) Dice of the permitted region of a moved picture with the moved permitted region, median over slices."""
    scores: dict[str, list[float]] = {}
    for count, (_, _, hu, _, spacing) in enumerate(healthy_slices(data, folders)):
        if count % 3:
            continue
        still = _permitted(hu, spacing, network)
        side = hu.shape[0]
        moves = {
            "shift by 17 and -9 pixels": np.array([[1, 0, 17], [0, 1, -9]], np.float32),
            "rotation by 10 degrees": cv2.getRotationMatrix2D((side / 2, side / 2), 10, 1.0),
            "rotation by 90 degrees": cv2.getRotationMatrix2D((side / 2 - 0.5, side / 2 - 0.5), 90, 1.0),
            "left for right": np.array([[-1, 0, side - 1], [0, 1, 0]], np.float32),
            "face down": np.array([[1, 0, 0], [0, -1, side - 1]], np.float32),
        }
        for name, matrix in moves.items():
            turned = cv2.warpAffine(hu.astype(np.float32), matrix, (side, side), borderValue=-1024)
            expected = cv2.warpAffine(still.astype(np.uint8), matrix, (side, side), flags=cv2.INTER_NEAREST) > 0
            found = _permitted(np.rint(turned).astype(np.int16), spacing, network)
            scores.setdefault(name, []).append(dice(found, expected, np.ones_like(found)))
    return {name: {"n": len(values), "Dice": interval(np.array(values))} for name, values in scores.items()}


def _permitted(hu: NDArray[Any], spacing: tuple[float, float, float], network: PlacementNetwork) -> NDArray[np.bool_]:
    try:
        found = danger_network_ct(as_image(hu[np.newaxis], spacing), margins=MARGINS, network=network)
    except PlacementError:
        return np.zeros(hu.shape, dtype=bool)
    return np.asarray(found.labels[0] == 0)
