"""Measures the invisible mark on the shared data: run `python -m Testing.benchmarks.mark --help`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from HiResMedSynthLib import mark
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image

QUALITIES: tuple[int | None, ...] = (None, 95, 90, 75, 50)
DIAMETERS_PX = (16, 24, 32, 48, 64, 96, 128)
SPHERES_MM = (10, 15, 20, 30, 40)
SIDE = 512  # films are cut to it, around their middle
MARKED_FILMS = 20


def cut(plane: NDArray[Any]) -> NDArray[Any]:
    """The middle SIDE x SIDE pixels."""
    rows, columns = (max((n - SIDE) // 2, 0) for n in plane.shape)
    return plane[rows : rows + SIDE, columns : columns + SIDE]


def shown(image: MedicalImage, index: int) -> NDArray[np.uint8]:
    """A slice in its window, 8 bits."""
    return np.round(image.display_window().to_unit(image.pixels[index]) * 255).astype(np.uint8)


def compressed(plane: NDArray[np.uint8], quality: int | None) -> NDArray[Any]:
    from PIL import Image

    if quality is None:
        return plane
    packed = io.BytesIO()
    Image.fromarray(plane).save(packed, "JPEG", quality=quality)
    return np.asarray(Image.open(packed))


def storable(values: NDArray[Any]) -> NDArray[Any]:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def rate(answers: list[bool]) -> dict[str, Any]:
    """Share with its exact 95 % interval."""
    interval = binomtest(sum(answers), len(answers)).proportion_ci(method="exact")
    return {"hits": sum(answers), "n": len(answers), "low": interval.low, "high": interval.high}


def footprints(planes: list[NDArray[np.uint8]], amplitude: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Detection by diameter and JPEG quality: one disc in each picture, its place known or not."""
    for diameter in DIAMETERS_PX:
        for quality in QUALITIES:
            known, anywhere, wrong = [], [], []
            for number, plane in enumerate(planes):
                row, column = SIDE // 2 + 37 * number % 150 - 75, SIDE // 3 + 53 * number % 170
                rows, columns = np.ogrid[: plane.shape[0], : plane.shape[1]]
                inside = ((rows - row) ** 2 + (columns - column) ** 2 <= (diameter / 2) ** 2)[np.newaxis]
                pixels = plane[np.newaxis].copy()
                mark.add_mark(pixels, amplitude=amplitude, storable=storable, inside=inside, first=number)
                pixels = compressed(pixels[0], quality)[np.newaxis]
                answer = mark.find_at(pixels, inside, amplitude=amplitude, slices=[number]).answer
                known.append(answer == "yes")
                wrong.append(answer == "no")
                anywhere.append(mark.find_anywhere(pixels).answer == "yes")
            yield (
                f"{diameter} px, JPEG {quality or 'none'}",
                {"place known": rate(known), "place unknown": rate(anywhere), "wrongly no": rate(wrong)},
            )


def whole(planes: list[NDArray[np.uint8]], amplitude: float) -> dict[str, Any]:
    """Detection all over a picture, cut out of it by 5 rows and 3 columns."""
    found = {}
    for quality in QUALITIES:
        answers = []
        for plane in planes:
            pixels = plane[np.newaxis].copy()
            mark.add_mark(pixels, amplitude=amplitude, storable=storable)
            cropped = compressed(pixels[0], quality)[5:, 3:]
            answers.append(mark.find_whole(cropped, amplitude=amplitude).answer == "yes")
        found[f"JPEG {quality or 'none'}"] = rate(answers)
    return found


def spheres(volume: MedicalImage) -> dict[str, Any]:
    """Detection in a CT volume, place known, uncompressed: ten spheres of each diameter."""
    amplitude = mark.amplitude_for(volume)
    spacing = volume.spacing_mm
    grid = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(volume.shape, spacing, strict=True)), indexing="ij")
    found = {}
    for diameter in SPHERES_MM:
        answers, scores = [], []
        for number in range(10):
            middle = [
                volume.shape[0] / 2 * spacing[0],
                (150 + 22 * number) * spacing[1],
                (130 + 25 * number) * spacing[2],
            ]
            distance = sum((axis - at) ** 2 for axis, at in zip(grid, middle, strict=True))
            inside = distance <= (diameter / 2) ** 2
            pixels = volume.pixels.copy()
            mark.add_mark(pixels, amplitude=amplitude, storable=volume.storable, inside=inside)
            one = mark.find_at(pixels, inside, amplitude=amplitude)
            answers.append(one.answer == "yes")
            scores.append(one.z)
        found[f"{diameter} mm"] = {**rate(answers), "median z": float(np.median(scores))}
    return {"amplitude": amplitude, "window": volume.display_window().width, **found}


def false_alarms(pictures: Iterator[NDArray[Any]], say: Callable[[str], None]) -> dict[str, Any]:
    """Unmarked pictures looked at all over and anywhere."""
    over, part, largest = [], [], [0.0, 0.0]
    for number, plane in enumerate(pictures):
        one, other = mark.find_whole(plane, amplitude=1.0), mark.find_anywhere(cut(plane)[np.newaxis])
        over.append(one.answer == "yes")
        part.append(other.answer == "yes")
        largest = [max(largest[0], abs(one.z)), max(largest[1], abs(other.z))]
        say(f"unmarked {number + 1}")
    return {"all over": rate(over), "anywhere": rate(part), "largest z": largest}


@click.command(epilog="Example: python -m Testing.benchmarks.mark --data DATA --out runs/mark.json")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="The shared data's folder.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
def main(data: Path, out: Path) -> None:
    """Detection by footprint and JPEG quality; false alarms on unmarked real pictures."""

    def say(text: str) -> None:
        click.echo(text, err=True)

    films = [data / "cxr_nih" / "images", data / "cxr_hannover" / "images"]
    files = [file for folder in films for file in sorted(folder.iterdir())]
    step = len(files) // MARKED_FILMS
    planes = [cut(shown(read_image(file), 0)) for file in files[::step][:MARKED_FILMS]]
    series = read_image(Path(__file__).parents[1] / "data" / "ct_series")
    slices = [shown(series, k) for k in range(series.slices)]
    level = mark.amplitude_for(series) / series.display_window().width * 255
    volume = read_image(data / "lidc_0001_ct" / "LIDC-IDRI-0001_ct_512_slab.nrrd")
    result: dict[str, Any] = {"films, whole": whole(planes, 1.0), "CT slices, whole": whole(slices, level)}
    say(json.dumps(result))
    result["spheres in a CT volume"] = spheres(volume)
    say(json.dumps(result["spheres in a CT volume"]))
    for name, pictures, amplitude in (("films", planes, 1.0), ("CT slices", slices, level)):
        result[name] = {"amplitude in grey levels": amplitude}
        for label, found in footprints(pictures, amplitude):
            result[name][label] = found
            say(f"{name} {label} {found}")
    unmarked = (shown(read_image(file), 0) for file in files)
    result["false alarms, films"] = false_alarms(unmarked, say)
    cts = (shown(one, k) for one in (series, volume) for k in range(one.slices))
    result["false alarms, CT slices"] = false_alarms(cts, say)
    out.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
