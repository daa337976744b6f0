"""Does a fixed segmenter treat composed lesions as it treats real ones? (The second test of 3D-mDAUNet.)

python -m Testing.benchmarks.segmenter_dice FOLDER_OF_lidc_nodule_voi_hu --singan runs/singan --out FOLDER

A region grower from a click, its three settings chosen on real nodules of training patients, is asked for real nodules
of test patients and for lesions composed in their places by `deform` (shipped bank) and by `singan` (networks trained
on bank lesions). No patient whose lesion is put in is among those that chose, and none among those tested.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, label

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.lesion.bank import Bank, load_bank
from HiResMedSynthLib.lesion.deform import draw_deformation
from HiResMedSynthLib.lesion.generators import Drawn
from HiResMedSynthLib.lesion.lesion import LesionCard
from HiResMedSynthLib.lesion.matte import pull_matte
from HiResMedSynthLib.lesion.singan import SinGan
from HiResMedSynthLib.lesion.trained import as_lesion, grid_voxel_mm
from HiResMedSynthLib.measure import PARENCHYMA_HU, TYPICAL_PARENCHYMA_HU
from Testing.benchmarks.fusion import SEED, Place, erased, image_of, nothing_forbidden, places
from Training.build_film_contrasts import is_test_patient
from Training.nodule_source import SourceNodule, nodules

SHARES, OPENINGS_MM, REACHES = (0.2, 0.3, 0.4, 0.5), (0.0, 0.6, 1.0, 1.5), (0.8, 1.0, 1.3)
NEAR_SEED_MM, SMOOTH_MM = 1.5, 0.4


@dataclass(frozen=True, kw_only=True)
class Grower:
    """A region grower from a click inside a lesion.

    Args:
        share: of the step from lung to the lesion's own HU, from where on a voxel belongs to it.
        opening_mm: radius of the ball that cuts vessels off.
        reach: how far it may grow, in half longest sides of the lesion's box.
    """

    share: float
    opening_mm: float
    reach: float

    def __call__(
        self, hu: NDArray[np.int16], outline: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.bool_]:
        """The lesion, bool; of the outline it is told the middle and the longest side, as by a click and a drag."""
        smooth = gaussian_filter(hu.astype(np.float32), [SMOOTH_MM / step for step in spacing_mm])
        at = np.argwhere(outline)
        inside = np.argmin((((at - at.mean(axis=0)) * spacing_mm) ** 2).sum(axis=1))
        grid = np.indices(hu.shape) * np.reshape(spacing_mm, (3, 1, 1, 1))
        away = np.sqrt(((grid - np.reshape(at[inside] * np.asarray(spacing_mm), (3, 1, 1, 1))) ** 2).sum(axis=0))
        airy = (hu > PARENCHYMA_HU[0]) & (hu < PARENCHYMA_HU[1])
        level = float(np.median(hu[airy])) if airy.any() else TYPICAL_PARENCHYMA_HU
        core = float(np.percentile(smooth[away <= NEAR_SEED_MM], 75))
        half_side = float(((np.ptp(at, axis=0) + 1) * spacing_mm).max()) / 2
        dense = (smooth > level + self.share * (core - level)) & (away <= self.reach * half_side + spacing_mm[0] / 2)
        if self.opening_mm > 0:
            deep = distance_transform_edt(dense, sampling=spacing_mm) > self.opening_mm
            kept = _piece(deep, away)
            dense &= distance_transform_edt(~kept, sampling=spacing_mm) <= self.opening_mm if kept.any() else dense
        return _piece(dense, away)


def _piece(mask: NDArray[np.bool_], away: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The piece that is nearest to the click."""
    pieces, count = label(mask)
    if not count:
        return mask
    return np.asarray(pieces == pieces.ravel()[np.where(mask.ravel(), away.ravel(), np.inf).argmin()])


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """2 |A and B| / (|A| + |B|)."""
    return 2 * float((one & other).sum()) / max(int(one.sum()) + int(other.sum()), 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Networks:
    """SinGAN networks of bank lesions, by the entry's name."""

    networks: dict[str, SinGan]
    cards: dict[str, LesionCard]
    voxels_mm: dict[str, float]

    @classmethod
    def of(cls, folder: Path, bank: Bank) -> Networks:
        """Those under a folder of runs, FOLDER/ENTRY/singan-0.safetensors, whose entry is in the bank."""
        names = [path.parent.name for path in sorted(folder.glob("*/singan-0.safetensors"))]
        names = [name for name in names if name in bank.cards]
        found = {name: SinGan.load(folder / name / "singan-0.safetensors") for name in names}
        return cls(
            networks=found, cards={name: bank.cards[name] for name in names},
            voxels_mm={name: grid_voxel_mm(bank.lesion(name), one.values) for name, one in found.items()},
        )  # fmt: skip

    def samples(self, kind: str, diameter_mm: float, rng: np.random.Generator) -> Iterator[Drawn]:
        """Samples of the network of that type that is nearest in size."""
        fitting = [name for name, card in self.cards.items() if card.type == kind]
        if not fitting:
            raise HiResMedSynthError(f"no network of a {kind} lesion is there", remedy="Train one.")
        name = min(fitting, key=lambda one: abs(math.log(self.cards[one].diameter_mm / diameter_mm)))
        while True:
            lesion = as_lesion(self.networks[name].sample(rng), self.voxels_mm[name], self.cards[name])
            yield Drawn(lesion=lesion, deformation=draw_deformation(rng, strength=0.0))


def composed(
    place: Place, bank: Bank, seed: int, samples: Iterator[Drawn] | None = None
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """(HU, mask) with another lesion of the host's type and size in its place: one of the samples, or (None)
    one of the bank's.
    """
    nodule = place.nodule
    empty = erased(place)
    room = math.ceil(8.0 / nodule.spacing_mm[0])
    ground = nothing_forbidden(image_of(np.pad(empty, ((room, room), (0, 0), (0, 0)), mode="symmetric"), nodule))
    at = np.argwhere(place.region).mean(axis=0)
    request = LesionRequest(
        place=(float(at[0]) + room, float(at[1]), float(at[2])), type=nodule.type,  # type: ignore[arg-type]
        size_mm=(place.diameter_mm, place.diameter_mm), seed=seed,
    )  # fmt: skip
    settings = CaseSettings(requests=(request,), domain="lung-ct")
    sampled = mock.Mock(identity="samples", **{"draw.side_effect": samples})
    instead = mock.patch("HiResMedSynthLib.draw_case.generator_of", return_value=sampled)
    with nullcontext() if samples is None else instead:
        case = draw_case(ground.image, settings, SEED, bank=bank, ground=ground)
    made = compose(ground.image, case)
    inner = slice(room, room + len(nodule.hu))
    return made.image.pixels[inner], made.instance_mask[inner] > 0


def matte_outline(nodule: SourceNodule) -> NDArray[np.bool_]:
    """The nodule's mask as a composed lesion's is made: at least a half of the voxel."""
    soft = nodule.type in ("part-solid", "ground-glass")
    matte = pull_matte(nodule.hu, nodule.readers, spacing_mm=nodule.spacing_mm, soft=soft)
    return np.asarray(matte.alpha[matte.padding : -matte.padding] >= 0.5)


def chosen(found: list[SourceNodule]) -> Grower:
    """The settings that do best on these nodules."""
    growers = [
        Grower(share=share, opening_mm=opening, reach=reach)
        for share, opening, reach in itertools.product(SHARES, OPENINGS_MM, REACHES)
    ]

    def of(grower: Grower) -> float:
        return float(np.mean([dice(grower(n.hu, n.majority, n.spacing_mm), n.majority) for n in found]))

    return max(growers, key=of)


def interval(values: NDArray[np.float64]) -> str:
    """The mean with its 95 % interval by a bootstrap of patients, in words."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--singan", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of SinGAN runs.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV of all Dice to write.")
@click.option("--choose-on", default=60, show_default=True, help="Training patients that choose the settings.")
@click.option("--limit", type=int, help="At most so many hosts.")
def main(folder: Path, singan: Path, out: Path, choose_on: int, limit: int | None) -> None:
    """Prints the table as Markdown."""
    found = list(nodules(folder))
    bank = load_bank()
    bank = replace(
        bank,
        cards={name: c for name, c in bank.cards.items() if c.patient_id and not is_test_patient(c.patient_id)},
    )
    giving = {card.patient_id for card in bank.cards.values()}
    training = [n for n in found if not is_test_patient(n.patient_id) and n.patient_id not in giving]
    training = training[:: max(len(training) // choose_on, 1)]
    hosts = [place for place in places(found) if is_test_patient(place.nodule.patient_id)][:limit]
    networks = Networks.of(singan, bank)
    if not networks.networks:
        raise click.ClickException(f"{singan} holds no network of a lesion of the bank: ENTRY/singan-0.safetensors.")
    grower = chosen(training)
    click.echo(f"chosen on {len(training)} patients: {grower}")
    rows = []
    for k, place in enumerate(hosts):
        nodule, spacing = place.nodule, place.nodule.spacing_mm
        rng = np.random.default_rng((SEED, k))
        matte = matte_outline(nodule)
        scenes = {"real": (nodule.hu, nodule.majority), "real, its matte as mask": (nodule.hu, matte)}
        size = (6 * float(matte.sum()) * math.prod(spacing) / math.pi) ** (1 / 3)
        host = replace(place, diameter_mm=size)
        try:
            scenes["deform"] = composed(host, bank, k)
            scenes["singan"] = composed(host, bank, k, networks.samples(nodule.type, size, rng))
        except HiResMedSynthError as error:
            click.echo(f"{nodule.row['key']}: {error.what}", err=True)
            continue
        of = {name: dice(grower(hu, mask, spacing), mask) for name, (hu, mask) in scenes.items()}
        rows.append({"patient": nodule.patient_id, "type": nodule.type, "diameter_mm": f"{size:.2f}", **of})
    if not rows:
        raise click.ClickException("In none of the hosts could a lesion be composed.")
    aside = out.with_suffix(".part")
    with aside.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    aside.replace(out)
    click.echo("\n| lesions | n | Dice (95 %) | less real's, same place |\n| --- | --- | --- | --- |")
    for kinds, chosen_rows in (("", rows), ("solid: ", [row for row in rows if row["type"] == "solid"])):
        if not chosen_rows:
            continue
        values = {name: np.array([float(row[name]) for row in chosen_rows]) for name in of}
        for name in of:
            against = "real" if name.startswith("real") else "real, its matte as mask"
            less = "" if name == "real" else interval(values[name] - values[against])
            click.echo(f"| {kinds}{name} | {len(chosen_rows)} | {interval(values[name])} | {less} |")


if __name__ == "__main__":
    main()
