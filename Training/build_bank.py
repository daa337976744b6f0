r"""Builds the lesion bank from LIDC-IDRI nodule volumes: chooses, cuts out, resamples once, writes safetensors + hash.

python -m Training.build_bank FOLDER_OF_lidc_nodule_voi_hu --stones FOLDER_OF_ct_abdomen_kub_totalseg \
    --out HiResMedSynthLib/lesion/bank_data/nodules.safetensors
"""

from __future__ import annotations

import csv
import hashlib
import string
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
from scipy.ndimage import distance_transform_edt, label

from HiResMedSynthLib import measure
from HiResMedSynthLib.lesion.bank import bank_bytes
from HiResMedSynthLib.lesion.cut_out import cut_out
from HiResMedSynthLib.lesion.lesion import Lesion, LesionCard
from Training.nodule_source import ATTRIBUTION, LICENCE, SourceNodule, nodules

STONE_ATTRIBUTION = (
    "Wasserthal J et al. TotalSegmentator: Robust Segmentation of 104 Anatomic Structures in CT Images. "
    "Radiology: Artificial Intelligence 2023, doi 10.1148/ryai.230024; University Hospital Basel"
)
FAINTEST_HU = 120  # mean over the surrounding parenchyma: fainter ones vanish in thick slices
DENSEST_SOLID_HU = 200
NOISIEST_HU, NOISIEST_SOFT_HU = 20, 12  # noise looks like texture in ground glass
DENSE_HU = -500  # a voxel of the shell above this is vessel, pleura or wall
SIZES_MM = (4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.5, 12.0, 14.0, 17.0, 21.0, 30.0)
SPICULATED = 3.0  # readers' mean from here on
# type -> (entries a size bin, entries that must be spiculated where the bin has any)
WANTED = {"solid": (4, 1), "calcified": (2, 0), "part-solid": (4, 0), "ground-glass": (4, 0)}


@dataclass(frozen=True)
class Judged:
    """A nodule that passed the strict rules, with what it was judged by."""

    nodule: SourceNodule
    noise_hu: float
    dense_share: float
    background_hu: float

    @property
    def badness(self) -> float:
        """Noise and attached tissue; the lower the better."""
        return self.noise_hu / 12 + 2 * self.dense_share


def judge(nodule: SourceNodule) -> Judged | None:
    """The nodule if it is bank-worthy, else None: one piece, >= 5 slices, readers agree, margin, clean, quiet."""
    mask, spacing = nodule.majority, nodule.spacing_mm
    areas = (nodule.readers > 0).sum(axis=(1, 2))  # the union of all readers, so that no end is cut flat
    filled = np.flatnonzero(areas)
    if spacing[0] > 2.0 or len(filled) < 5 or max(areas[0], areas[-1]) > 0.25 * areas.max():
        return None
    if label(mask, np.ones((3, 3, 3)))[1] != 1 or (nodule.readers >= 3).sum() < 0.6 * mask.sum():
        return None
    if nodule.readers.max() < 3:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=(0, 2))), np.flatnonzero(mask.any(axis=(0, 1)))
    margin = min(rows[0], columns[0], mask.shape[1] - 1 - rows[-1], mask.shape[2] - 1 - columns[-1])
    union = nodule.readers > 0
    outside = distance_transform_edt(~union, sampling=spacing)
    parenchyma = (outside > 4) & (nodule.hu < -700) & (nodule.hu > -1000)
    if margin < 8 or parenchyma.sum() < 500:
        return None
    noise = measure.noise(nodule.hu, parenchyma)
    background = float(np.median(nodule.hu[parenchyma]))
    if nodule.hu[mask].mean() - background < FAINTEST_HU:
        return None
    if nodule.type == "solid" and np.percentile(nodule.hu[mask], 95) > DENSEST_SOLID_HU:
        return None  # calcified or strongly enhancing, whatever the readers' code says
    dense = float((nodule.hu[(outside > 1) & (outside <= 3)] > DENSE_HU).mean())
    noisiest = NOISIEST_SOFT_HU if nodule.type in ("part-solid", "ground-glass") else NOISIEST_HU
    return Judged(nodule, noise, dense, background) if noise <= noisiest and dense <= 0.25 else None


def entry(judged: Judged, name: str) -> Lesion:
    """The nodule as an entry of the bank."""
    nodule = judged.nodule
    card = LesionCard(
        name=name, origin="real cut-out", type=nodule.type,  # type: ignore[arg-type]
        diameter_mm=round(nodule.rating("diam_equiv_mm"), 1),
        licence=LICENCE, attribution=ATTRIBUTION, collection="LIDC-IDRI", patient_id=nodule.patient_id,
        noise_hu=round(judged.noise_hu, 1), spiculation=nodule.rating("spiculation"),
        lobulation=nodule.rating("lobulation"), texture=nodule.rating("texture"),
        malignancy=nodule.rating("malignancy"), slice_spacing_mm=float(nodule.spacing_mm[0]),
        background_hu=judged.background_hu,
    )  # fmt: skip
    return cut_out(nodule.hu, nodule.readers, spacing_mm=nodule.spacing_mm, card=card)


def chosen(worthy: list[Judged]) -> list[Judged]:
    """The cleanest nodules of each type and size, one a patient; spiculated ones among the solid."""
    used: set[str] = set()
    found: list[Judged] = []
    for kind, (count, spiculated) in WANTED.items():
        for low, high in pairwise(SIZES_MM):
            fitting = [
                judged
                for judged in worthy
                if judged.nodule.type == kind and low <= judged.nodule.rating("diam_equiv_mm") < high
            ]
            fitting.sort(key=lambda judged: judged.badness)
            first = [judged for judged in fitting if judged.nodule.rating("spiculation") >= SPICULATED][:spiculated]
            taken = 0
            for judged in [*first, *(judged for judged in fitting if judged not in first)]:
                if taken < count and judged.nodule.patient_id not in used:
                    used.add(judged.nodule.patient_id)
                    found.append(judged)
                    taken += 1
    return found


def stones(folder: Path) -> list[Lesion]:
    """The real kidney stones that stones.csv names: coarse (3 mm voxels), but of true density and shape."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(folder / "ct_3mm.nrrd"))
    hu = sitk.GetArrayFromImage(image)
    spacing = tuple(reversed(image.GetSpacing()))
    found = []
    with (folder / "stones.csv").open(newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            at = [round(float(row[name])) for name in ("slice", "row", "col")]
            around = tuple(slice(max(c - 8, 0), c + 9) for c in at)
            crop = hu[around].astype(np.int16)
            center = [c - part.start for c, part in zip(at, around, strict=True)]
            tissue = float(np.median(crop))
            pieces, _ = label(crop > (tissue + float(crop[tuple(center)])) / 2, np.ones((3, 3, 3)))
            inside = pieces == pieces[tuple(center)]
            diameter = float((6 * inside.sum() * np.prod(spacing) / np.pi) ** (1 / 3))
            card = LesionCard(
                name=f"stone-{round(diameter):02d}mm-{string.ascii_lowercase[number]}", origin="real cut-out",
                type="stone", diameter_mm=round(diameter, 1), licence="Apache-2.0", attribution=STONE_ATTRIBUTION,
                collection="TotalSegmentator example CT", background_hu=tissue, slice_spacing_mm=float(spacing[0]),
            )  # fmt: skip
            found.append(cut_out(crop, inside.astype(np.uint8), spacing_mm=spacing, card=card))
    return found


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--stones", "stones_folder", type=click.Path(path_type=Path, exists=True), help="ct_abdomen_kub_totalseg."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The safetensors file to write.")
def main(folder: Path, stones_folder: Path | None, out: Path) -> None:
    """Chooses nodules of FOLDER by the strict rules, one for each wanted type and size, and writes the bank."""
    worthy = [judged for nodule in nodules(folder) if (judged := judge(nodule)) is not None]
    click.echo(f"{len(worthy)} nodules pass the strict rules")
    lesions: list[Lesion] = []
    for best in chosen(worthy):
        kind, diameter = best.nodule.type, best.nodule.rating("diam_equiv_mm")
        stem = f"{kind}-{round(diameter):02d}mm"
        letter = next(c for c in string.ascii_lowercase if f"{stem}-{c}" not in {x.card.name for x in lesions})
        lesions.append(entry(best, f"{stem}-{letter}"))
        click.echo(f"{lesions[-1].card.name}: {best.nodule.patient_id}, noise {best.noise_hu:.1f} HU")
    lesions += stones(stones_folder) if stones_folder is not None else []
    packed = bank_bytes(sorted(lesions, key=lambda lesion: lesion.card.name))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(packed)
    click.echo(
        f"{out}: {len(lesions)} lesions, {len(packed) / 1e6:.2f} MB, sha256 {hashlib.sha256(packed).hexdigest()}"
    )


if __name__ == "__main__":
    main()
