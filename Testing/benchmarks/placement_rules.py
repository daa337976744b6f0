"""Measures the rules of placement on the shared data: run `python -m Testing.benchmarks.placement_rules --help`."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_map import PLEURA_MARGIN, VESSELS
from HiResMedSynthLib.placement.location import heatmap
from HiResMedSynthLib.placement.lungs_cxr import fit_chest
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.project import project, project_labels
from HiResMedSynthLib.read import read_image
from Training.build_cxr_lung_template import IGNORED, build_template, read_masked_films, read_shapes

BONE_HU, BONE_MM = 250, 6.0
LUNG_LABELS = (4, 5, 6)  # of the shared label map: right, left, vessel-like in the lung


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_], counted: NDArray[np.bool_]) -> float:
    return float(2 * (one & other & counted).sum() / ((one & counted).sum() + (other & counted).sum()))


def hannover(data: Path) -> dict[str, Any]:
    """Dice of the lung-shape rule; each film is fitted with a template of the other half of the patients."""
    films, shapes = read_masked_films(data / "cxr_hannover"), read_shapes(data / "cxr_anatomy_masks")
    patients = sorted({film.patient_id for film in films})
    half = [patients.index(film.patient_id) % 2 for film in films]
    templates = [
        build_template([film for film, h in zip(films, half, strict=True) if h != side], shapes) for side in (0, 1)
    ]
    scores, shipped, seconds, likeness = [], [], [], []
    for film, side in zip(films, half, strict=True):
        truth, counted = np.isin(film.mask, (1, 2)), film.mask != IGNORED
        picture = film.film.astype(np.float32)
        start = time.perf_counter()
        fit = fit_chest(picture, pixel_spacing_mm=(1, 1), template=templates[side])
        seconds.append(time.perf_counter() - start)
        likeness.append(fit.likeness)
        scores.append(dice(fit.lungs > 0.5, truth, counted))
        shipped.append(dice(fit_chest(picture, pixel_spacing_mm=(1, 1)).lungs > 0.5, truth, counted))
    values, views = np.array(scores), np.array([film.view for film in films])
    sides = np.array(half)
    return {
        "films": len(films),
        "patients": len(patients),
        "mean": values.mean(),
        "median": float(np.median(values)),
        "worst": values.min(),
        "tenth percentile": float(np.percentile(values, 10)),
        "PA mean": values[views == "PA"].mean(),
        "AP mean": values[views == "AP"].mean(),
        "half A mean": values[sides == 0].mean(),
        "half B mean": values[sides == 1].mean(),
        "shipped template (seen films) mean": float(np.mean(shipped)),
        "lowest likeness": min(likeness),
        "seconds a film": float(np.median(seconds)),
    }


def kub(data: Path) -> dict[str, Any]:
    """Bone that the rule forbids on the film projected from the abdominal CT: one patient."""
    volume = read_image(data / "ct_abdomen_kub_totalseg" / "ct_3mm.nrrd")
    film = project(volume, pixel_spacing_mm=(1.0, 1.0))
    bone = project_labels((volume.pixels > BONE_HU).astype(np.uint8), volume, pixel_spacing_mm=(1.0, 1.0))[1] > BONE_MM
    start = time.perf_counter()
    found = danger(film, domain="kub", margins=Margins())
    seconds = time.perf_counter() - start
    forbidden = np.isin(found.labels[0], (2, 3))
    trunk = bone.copy()
    trunk[: len(bone) // 3, : bone.shape[1] // 3] = trunk[: len(bone) // 3, -(bone.shape[1] // 3) :] = False
    return {
        "patients": 1,
        "bone forbidden, ribs counted": float((forbidden & bone).sum() / bone.sum()),
        "bone forbidden, without ribs": float((forbidden & trunk).sum() / trunk.sum()),
        "bone among the permitted": float((bone & (found.labels[0] == 0)).sum() / (found.labels[0] == 0).sum()),
        "permitted share of the film": float((found.labels[0] == 0).mean()),
        "seconds": seconds,
    }


def ct(data: Path) -> dict[str, Any]:
    """Agreement with the rule-made lung labels of LIDC-IDRI-0001, and its lung box (mm from the picture's centre)."""
    folder = data / "lidc_0001_ct"
    image = read_image(folder / "LIDC-IDRI-0001_ct_256.nrrd")
    truth = read_image(folder / "LIDC-IDRI-0001_simple_labels_256.nrrd").pixels
    found = danger(image, domain="lung-ct", margins=Margins())
    lungs = found.region((PLEURA_MARGIN, VESSELS))
    box = [np.flatnonzero(lungs.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    spacing = image.spacing_mm
    return {
        "lung Dice to the shared label map": dice(lungs, np.isin(truth, LUNG_LABELS), np.ones_like(lungs)),
        "lung box z (share of the scan)": ((box[0] + [0, 1]) / image.slices).tolist(),
        "lung box y mm": ((box[1] + [0, 1] - image.rows / 2) * spacing[1]).tolist(),
        "lung box x mm": ((box[2] + [0, 1] - image.columns / 2) * spacing[2]).tolist(),
    }


def speed() -> dict[str, Any]:
    """The repository's own series resampled to 300x512x512, and one slice of it."""
    import cv2

    image = read_image(Path(__file__).resolve().parents[1] / "data" / "ct_series")
    at = np.linspace(0, image.slices - 1, 300)
    low = np.minimum(at.astype(int), image.slices - 2)
    pixels = np.stack(
        [
            cv2.addWeighted(image.pixels[k], 1 - (a - k), image.pixels[k + 1], a - k, 0)
            for k, a in zip(low, at, strict=True)
        ]
    )
    volume = MedicalImage(
        pixels=pixels,
        modality="CT",
        units="HU",
        pixel_spacing_mm=image.pixel_spacing_mm,
        spacing_source="header",
        slice_thickness_mm=1.0,
    )
    seconds = {}
    for name, part in (("one slice", volume.single_slice(150)), ("300x512x512", volume)):
        start = time.perf_counter()
        found = danger(part, domain="lung-ct", margins=Margins())
        seconds[f"{name}, danger s"] = time.perf_counter() - start
        start = time.perf_counter()
        heatmap(part, found, domain="lung-ct")
        seconds[f"{name}, heatmap s"] = time.perf_counter() - start
    return {**seconds, "peak memory GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="The shared data's folder.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON to write.")
def main(data: Path, out: Path | None) -> None:
    """Prints the measured tables as Markdown."""
    tables = {
        "Speed (2 cores)": speed(),
        "Chest films: Hannover, cross-validated by patient": hannover(data),
        "KUB: film projected from CT": kub(data),
        "CT: LIDC-IDRI-0001": ct(data),
    }
    for title, table in tables.items():
        click.echo(f"\n### {title}\n\n| what | measured |\n|---|---|")
        for name, value in table.items():
            numbers = value if isinstance(value, list) else [value]
            click.echo(f"| {name} | {', '.join(f'{number:.4g}' for number in numbers)} |")
    if out is not None:
        out.write_text(json.dumps(tables, indent=2, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
