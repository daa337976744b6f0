"""Measures the CT danger network against the rule: run `python -m Testing.benchmarks.danger_ct --help`.

Two networks cross the collections: A learned from LIDC-IDRI-0001, the abdomen CT and nodule crops of even patient
numbers, B from Lung_Dx-A0001, the SBU slices and the crops of odd numbers; each is measured on what it never saw. What
stands here was not used to choose anything but the code itself.
"""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import PlacementError, ReadError
from HiResMedSynthLib.placement.chest_by_slice import find_regions_by_both, find_regions_by_network
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.danger_ct import danger_network_ct
from HiResMedSynthLib.placement.danger_map import DangerMap
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork, build
from HiResMedSynthLib.placement.network_ct import CLASSES
from HiResMedSynthLib.placement.regions_ct import ChestRegions, danger_of_regions
from HiResMedSynthLib.read import read_image
from Testing.benchmarks.danger_ct_disease import diseased, paired, simulated
from Testing.benchmarks.danger_ct_measures import MARGINS, as_image, dice, interval, true_map
from Testing.benchmarks.danger_ct_sites import moved, veto
from Training.checkpoint import CHECKPOINT, load_average
from Training.danger_ct_labels import AIRWAY, ANY, BONE, LUNG, MEDIASTINUM, OUTSIDE, WALL
from Training.danger_ct_sources import LabelledStack, read_stacks
from Training.options import told_plainly

PARTS = ("agreement", "simulated", "diseased", "veto", "moved", "speed")
NEEDS = {"diseased": ("A",), "veto": ("A", "B")}  # the others measure whichever networks are there
TESTED = {"A": ("dicom_ct_lung_dx_a0001", "covid_sbu_slices"), "B": ("lidc_0001_ct", "ct_abdomen_kub_totalseg")}


def load_run(run: Path) -> PlacementNetwork:
    """The network of a run with its last averaged weights: nothing was chosen by what is measured here."""
    state, described = load_average(run / CHECKPOINT)
    plan = NetworkPlan.from_json(described["plan"])
    module = build(plan)
    module.load_state_dict(state)
    return PlacementNetwork.of(plan, module.to(memory_format=torch.channels_last), name=run.name)


def load_runs(runs: Path, parts: tuple[str, ...]) -> dict[str, PlacementNetwork]:
    """The networks that lie in `runs`, by fold.

    Raises:
        ReadError: there is none, or not one that a part needs.
    """
    there = [fold for fold in TESTED if (runs / f"fold{fold}" / CHECKPOINT).is_file()]
    train = "Train as docs/results/danger_ct.md says"
    if not there:
        what = f"there is no trained network: neither foldA/{CHECKPOINT} nor foldB/{CHECKPOINT}"
        raise ReadError(what, where=runs, remedy=f"{train}.")
    for part in parts:
        if missing := [f"fold{fold}/{CHECKPOINT}" for fold in NEEDS.get(part, ()) if fold not in there]:
            others = [f"--only {other}" for other in parts if set(NEEDS.get(other, ())) <= set(there)]
            advice = f", or say {' '.join(others)}" if others else ""
            raise ReadError(f"{part} needs {' and '.join(missing)}", where=runs, remedy=f"{train}{advice}.")
    return {fold: load_run(runs / f"fold{fold}") for fold in there}


def agreement(
    data: Path, network: PlacementNetwork, folders: tuple[str, ...], find: Callable[..., ChestRegions]
) -> dict[str, Any]:
    """(a) Dice by class and patient, error rates by slice, refusals, on collections never seen.

    `find` is `find_regions_by_network` or, for what ships, `find_regions_by_both`. Most labels come from the rule, so
    what the rule adds to the network in the second agrees with them by itself; what the network adds to it does not.
    A chest that is refused counts as one in which nothing was found.
    """
    result: dict[str, Any] = {}
    for folder in folders:
        rates: dict[str, list[float]] = {
            "bone permitted": [], "mediastinum permitted": [], "forbidden permitted": [],
            "permitted forbidden": [], "lung Dice of a slice": [], "permitted in a slice without lung, mm2": [],
        }  # fmt: skip
        pooled: dict[str, NDArray[np.int64]] = {}
        stacks, refused = Counter[str](), Counter[str]()
        for stack in read_stacks(data / folder):
            if stack.by_hand:
                continue
            lungs = (stack.labels == LUNG).any()
            kind = "chest" if lungs else "abdominal"
            stacks[kind] += 1
            try:
                regions = find(stack.hu, spacing_mm=stack.spacing_mm, network=network)
            except PlacementError:
                refused[kind] += 1
                if not lungs:
                    continue
                regions = _nothing(stack)
            found = danger_of_regions(regions, spacing_mm=stack.spacing_mm, margins=MARGINS, method="network")
            _add_dice(pooled, regions, stack.labels)
            if lungs:
                _add_rates(rates, found, regions, stack)
        result[folder] = {
            "Dice": {CLASSES[c]: dice_of(pooled, c) for c in range(len(CLASSES))},
            **{f"{kind} stacks refused": f"{refused[kind]} of {stacks[kind]}" for kind in ("chest", "abdominal")},
            "slices": len(rates["permitted forbidden"]),
            **{name: interval(np.array(values)) for name, values in rates.items() if values},
            "slices without lung": len(rates["permitted in a slice without lung, mm2"]),
            "of them with over 100 mm2 permitted": sum(
                value > 100 for value in rates["permitted in a slice without lung, mm2"]
            ),
        }
    return result


def _nothing(stack: LabelledStack) -> ChestRegions:
    none = np.zeros(stack.hu.shape, dtype=bool)
    return ChestRegions(smooth_hu=stack.hu, body=none, lungs=none, airways=none, bone=none, mediastinum=none)


def dice_of(pooled: dict[str, NDArray[np.int64]], number: int) -> float:
    """Dice of one class from the pooled counts (NaN: the class is not labelled)."""
    both, one, other = pooled.get(str(number), np.zeros(3))
    return float(2 * both / (one + other)) if other else float("nan")


def _add_dice(pooled: dict[str, NDArray[np.int64]], regions: ChestRegions, labels: NDArray[np.uint8]) -> None:
    """Counts (both, said, true) of each class where the label is one class."""
    assert regions.bone is not None
    assert regions.mediastinum is not None
    said = np.where(regions.body, WALL, OUTSIDE)
    for mask, number in ((regions.bone, BONE), (regions.mediastinum, MEDIASTINUM), (regions.airways, AIRWAY),
                         (regions.lungs, LUNG)):  # fmt: skip
        said[mask] = number
    counted = labels <= LUNG
    for number in range(len(CLASSES)):
        one, other = (said == number) & counted, labels == number
        pooled[str(number)] = pooled.get(str(number), np.zeros(3, np.int64)) + np.array(
            [(one & other).sum(), one.sum(), other.sum()]
        )


def _add_rates(rates: dict[str, list[float]], found: DangerMap, regions: ChestRegions, stack: LabelledStack) -> None:
    truth = true_map(stack.hu, stack.labels, stack.spacing_mm)
    for index in range(len(stack.hu)):
        labels = stack.labels[index]
        pixel_mm2 = stack.spacing_mm[1] * stack.spacing_mm[2]
        permitted, true_permitted = found.labels[index] == 0, truth.labels[index] == 0
        if (labels == LUNG).sum() == 0 and len(stack.hu) > 1:
            rates["permitted in a slice without lung, mm2"].append(
                float((permitted & (labels != ANY)).sum() * pixel_mm2)
            )
        if (labels == LUNG).sum() * pixel_mm2 < 400:
            continue
        known = labels != ANY
        in_body = known & (labels != OUTSIDE) & ~true_permitted
        for name, number in (("bone permitted", BONE), ("mediastinum permitted", MEDIASTINUM)):
            if (labels == number).sum() > 50:
                rates[name].append(float(permitted[labels == number].mean()))
        missed = (permitted & known & ~true_permitted).sum()  # outside the body too
        rates["forbidden permitted"].append(float(missed / in_body.sum()))
        if (known & true_permitted).any():
            rates["permitted forbidden"].append(float((~permitted)[known & true_permitted].mean()))
        rates["lung Dice of a slice"].append(dice(regions.lungs[index], labels == LUNG, labels <= LUNG))


def speed(network: PlacementNetwork) -> dict[str, Any]:
    """(d) Seconds of one 512 x 512 slice and of 300 of them, and the peak memory, threads as set."""
    image = read_image(Path(__file__).resolve().parents[1] / "data" / "ct_series")
    chosen = np.linspace(0, image.slices - 1, 300).round().astype(int)
    volume = as_image(image.pixels[chosen], (1.0, *(image.pixel_spacing_mm or (1.0, 1.0))))
    one = volume.single_slice(150)
    danger_network_ct(one, margins=MARGINS, network=network)  # first call: imports, memory
    seconds: dict[str, Any] = {}
    for name, part in (("one slice", one), ("300 slices", volume)):
        start, used = time.perf_counter(), time.process_time()
        danger_network_ct(part, margins=MARGINS, network=network)
        seconds[f"network, {name}, s and CPU s"] = [time.perf_counter() - start, time.process_time() - used]
        start, used = time.perf_counter(), time.process_time()
        danger(part, domain="lung-ct", margins=MARGINS)
        seconds[f"rule, {name}, s and CPU s"] = [time.perf_counter() - start, time.process_time() - used]
    return {**seconds, "peak memory GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


@click.command(epilog="Example: python -m Testing.benchmarks.danger_ct --data DATA --runs runs/placement/ct")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="The shared data's folder.")
@click.option("--runs", type=click.Path(path_type=Path, exists=True), required=True, help="Holds foldA and foldB.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON to write, after each part.")
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="A part, repeatable [default: all].")
@click.option("--threads", type=int, default=1, show_default=True)
def main(data: Path, runs: Path, out: Path | None, only: tuple[str, ...], threads: int) -> None:
    """Prints what was measured as JSON."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    wanted = only or PARTS
    with told_plainly():
        networks = load_runs(runs, wanted)
    results: dict[str, Any] = {}

    def keep(name: str, part: Any) -> None:
        results[name] = part
        if out is not None:
            with written_aside(out) as aside:
                aside.write_text(json.dumps(results, indent=1, default=float) + "\n", encoding="utf-8")

    for fold, network in networks.items():
        if "agreement" in wanted:
            for way, find in (("alone", find_regions_by_network), ("as it ships", find_regions_by_both)):
                keep(f"agreement, network {fold} {way}", agreement(data, network, TESTED[fold], find))
        if "moved" in wanted:
            keep(f"moved, network {fold}", moved(data, network, TESTED[fold]))
    if "simulated" in wanted:
        rows = [
            row
            for number, (fold, network) in enumerate(networks.items())
            for row in simulated(data, network, TESTED[fold], fold=number)
        ]
        keep("simulated", paired(rows))
    if "diseased" in wanted:
        keep("diseased", diseased(data, networks["A"]))
    if "veto" in wanted:
        keep("veto", veto(data, networks))
    if "speed" in wanted:
        keep("speed", speed(next(iter(networks.values()))))
    click.echo(json.dumps(results, indent=1, default=float))


if __name__ == "__main__":
    main()
