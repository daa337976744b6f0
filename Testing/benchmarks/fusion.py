"""Do lesions that are put into a CT look like real ones there? Four ways to join them, in the same scans.

python -m Testing.benchmarks.fusion FOLDER_OF_lidc_nodule_voi_hu --out FOLDER [--part tune] [--cnn]

A real nodule is erased (`inpaint`, the scan's noise put back) and another patient's, of the same type and like size, is
put in its place: pasted, as in the paper, by its matte (`alpha`) and by `better`. Every donor is used once, donors are
never hosts; a fifth of the pairs (`--part tune`) is kept for choosing settings. Measures against the real nodule of the
same place; a machine reader, folds by host patient.
"""

from __future__ import annotations

import math
import pickle
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, map_coordinates

from HiResMedSynthLib.case import HALF, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.machine_reader import cnn_reader, feature_reader
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.inpaint import inpaint
from HiResMedSynthLib.joining.noise_texture import noise_texture
from HiResMedSynthLib.lesion.bank import Bank
from HiResMedSynthLib.lesion.lesion import Lesion
from HiResMedSynthLib.lesion.matte import pull_matte
from HiResMedSynthLib.measure import lesion_measures, lesion_region, parenchyma_noise
from HiResMedSynthLib.placement.danger_map import DangerMap
from HiResMedSynthLib.placement.margins import Margins
from Testing.benchmarks import fusion_saliency
from Testing.benchmarks.fusion_sheets import Crop, sheet, strand_sheet
from Testing.benchmarks.fusion_tables import strand_table, table
from Training.build_bank import entry, judge
from Training.nodule_source import SourceNodule, nodules

WAYS = ("own", "paste", "paper", "alpha", "bare", "better")  # bare: better without strands
LIKE_SIZE = 1.3  # largest ratio of a donor's diameter to its host's
SIZES_MM, NOISIEST_HU, DENSEST_SHELL = (4.0, 22.0), 40.0, 0.3
ERASED_MM = 2.0  # outside the readers' union
GRID, ACROSS, ACROSS_SEEN = 32, 2.0, 3.5  # voxels of the reader's window, its edge in diameters, bare and not
SEED = 3
SHEET_ROWS, STRAND_ROWS = 6, 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """A scan around a nodule, the same with the nodule erased, and where it was."""

    nodule: SourceNodule
    region: NDArray[np.bool_]
    diameter_mm: float
    level_hu: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Composed:
    """A lesion in a scan: HU, its outline, and what the acceptance test found (value, lowest, highest)."""

    hu: NDArray[np.int16]
    outline: NDArray[np.bool_]
    log: tuple[str, ...] = ()
    outside: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def excess(self) -> float:
        """How far outside the real nodules' ranges, in widths of these."""
        return sum(max(low - value, value - high) / (high - low) for value, low, high in self.outside.values())

    @property
    def unlike(self) -> str:
        """What is outside them, in words."""
        return "; ".join(f"{name} {v:.3g} not {a:.3g} to {b:.3g}" for name, (v, a, b) in self.outside.items()) or "-"


def places(found: list[SourceNodule]) -> list[Place]:
    """The nodules that a host may have: outlined by three readers, in parenchyma, not in a heap of noise."""
    chosen = []
    for nodule in found:
        if nodule.readers.max() < 3:
            continue
        region, parenchyma = lesion_region(nodule.hu, nodule.majority, spacing_mm=nodule.spacing_mm)
        diameter = float((6 * region.sum() * np.prod(nodule.spacing_mm) / np.pi) ** (1 / 3))
        outside = distance_transform_edt(nodule.readers == 0, sampling=nodule.spacing_mm)
        shell = (outside > 1) & (outside <= 3)
        if (
            not SIZES_MM[0] <= diameter <= SIZES_MM[1]
            or parenchyma.sum() < 300
            or not parenchyma_noise(nodule.hu, parenchyma) <= NOISIEST_HU
            or (nodule.hu[shell] > -500).mean() > DENSEST_SHELL
        ):
            continue
        level = float(np.median(nodule.hu[parenchyma]))
        chosen.append(Place(nodule=nodule, region=region, diameter_mm=diameter, level_hu=level))
    return chosen


def thickened(nodule: SourceNodule, slice_mm: float) -> SourceNodule | None:
    """The nodule in slices of about that thickness, neighbours averaged; None where that leaves too few."""
    together = max(round(slice_mm / nodule.spacing_mm[0]), 1)
    count = len(nodule.hu) // together
    if count < 2:
        return None
    blocks = [array[: count * together].reshape(count, together, *array.shape[1:]) for array in
              (nodule.hu.astype(np.float32), nodule.readers.astype(np.float32))]  # fmt: skip
    hu, readers = (np.round(block.mean(axis=1)) for block in blocks)
    thick = str(together * nodule.spacing_mm[0])
    row = {**nodule.row, "dz_mm": thick, "slice_thickness_mm": thick}
    return SourceNodule(row=row, hu=hu.astype(np.int16), readers=readers.astype(np.uint8))


def pairs(found: list[SourceNodule], hosts: list[SourceNodule]) -> list[tuple[Place, Lesion]]:
    """(host, donor) of the same type and like size, each used once, in a fixed shuffled order."""
    donors = [entry(one, f"donor-{k}") for k, one in enumerate(map(judge, found)) if one is not None]
    giving = {donor.card.patient_id for donor in donors}
    free = [place for place in places(hosts) if place.nodule.patient_id not in giving]
    rng = np.random.default_rng(SEED)
    matched = []
    for index in rng.permutation(len(donors)):
        donor = donors[index]
        apart = {
            k: abs(math.log(place.diameter_mm / donor.card.diameter_mm))
            for k, place in enumerate(free)
            if place.nodule.type == donor.card.type
        }
        if apart and min(apart.values()) <= math.log(LIKE_SIZE):
            matched.append((free.pop(min(apart, key=apart.__getitem__)), donor))
    return matched


def erased(place: Place) -> NDArray[np.int16]:
    """The scan without its nodule: parenchyma filled in smoothly, with the scan's own noise."""
    nodule = place.nodule
    away = distance_transform_edt(nodule.readers == 0, sampling=nodule.spacing_mm)
    gone = away <= ERASED_MM
    filled = inpaint(nodule.hu.astype(np.float32), gone, spacing_mm=nodule.spacing_mm)
    _, parenchyma = lesion_region(nodule.hu, nodule.majority, spacing_mm=nodule.spacing_mm)
    strength = parenchyma_noise(nodule.hu, parenchyma)
    grain = noise_texture(nodule.hu).field(nodule.hu.shape, np.random.default_rng(1))  # type: ignore[arg-type]
    return np.round(filled + strength * grain * gone).astype(np.int16)


def image_of(hu: NDArray[np.int16], nodule: SourceNodule) -> MedicalImage:
    """The crop as a CT."""
    slice_mm, row_mm, column_mm = nodule.spacing_mm
    return MedicalImage(
        pixels=hu, modality="CT", units="HU", pixel_spacing_mm=(row_mm, column_mm), spacing_source="header",
        slice_thickness_mm=float(nodule.row["slice_thickness_mm"]),
        positions_lps_mm=np.array([[0.0, 0.0, slice_mm * k] for k in range(len(hu))]),
    )  # fmt: skip


def nothing_forbidden(image: MedicalImage) -> Ground:
    """The CT with every place permitted."""
    nothing = DangerMap(labels=np.zeros(image.shape, np.uint8), names={}, method="rule: nothing is forbidden")
    return Ground(image=image, domain="lung-ct", margins=Margins(), danger_map=nothing)


def bank_of(donor: Lesion) -> Bank:
    """A bank of this one."""
    name = donor.card.name
    arrays = {f"{name}.alpha": (donor.alpha // 257).astype(np.uint8), f"{name}.intensity_hu": donor.intensity_hu}
    return Bank(cards={name: donor.card}, voxels_mm={name: donor.voxel_mm}, arrays=arrays, sha256=name)


def composed(place: Place, donor: Lesion) -> dict[str, Composed]:
    """The host with its own nodule taken out and put back, and with the donor's by each way."""
    nodule, slices = place.nodule, len(place.nodule.hu)
    empty = erased(place)
    room = math.ceil(8.0 / nodule.spacing_mm[0])
    mirrored = np.pad(empty, ((room, room), (0, 0), (0, 0)), mode="symmetric")
    image = image_of(mirrored, nodule)
    ground = nothing_forbidden(image)
    at = np.argwhere(place.region).mean(axis=0)
    soft = nodule.type in ("part-solid", "ground-glass")
    matte = pull_matte(nodule.hu, nodule.readers, spacing_mm=nodule.spacing_mm, soft=soft)
    # a wanted diameter is that of the matte's volume
    size = float((6 * matte.alpha.sum() * np.prod(nodule.spacing_mm) / np.pi) ** (1 / 3))
    request = LesionRequest(
        place=(float(at[0]) + room, float(at[1]), float(at[2])), type=nodule.type,  # type: ignore[arg-type]
        size_mm=(size, size), bank_entry=donor.card.name,
    )  # fmt: skip
    cut = slice(matte.padding, -matte.padding)
    share = matte.alpha[cut]
    own = np.round(share * matte.foreground_hu[cut] + (1 - share) * empty).astype(np.int16)
    found = {"own": Composed(hu=own, outline=nodule.majority)}
    inner = slice(room, room + slices)
    for way in ("better", "bare", "alpha", "paper"):
        fusion = "better" if way == "bare" else way
        settings = CaseSettings(requests=(request,), domain="lung-ct", fusion=fusion)  # type: ignore[arg-type]
        strands = mock.patch("HiResMedSynthLib.draw_case.with_strands", _unconnected)
        with strands if way == "bare" else nullcontext():
            case = draw_case(image, settings, SEED, bank=bank_of(donor), ground=ground)
        composition = compose(image, case)
        found[way] = Composed(
            hu=composition.image.pixels[inner], outline=composition.instance_mask[inner] > 0, log=case.log,
            outside=case.lesions[0].details.get("acceptance", {}).get("outside", {}),
        )  # fmt: skip
        if way == "alpha":
            hu, lesion = mirrored.copy(), case.lesions[0]
            np.copyto(hu[lesion.region], lesion.intensity, where=lesion.alpha >= HALF)
            found["paste"] = Composed(hu=hu[inner], outline=found[way].outline)
    return found


def _unconnected(lesion: PlacedLesion, _ground: Ground, **_rest: object) -> PlacedLesion:
    """In place of `with_strands`: the lesion as it is."""
    return lesion


def window(one: Composed, spacing_mm: tuple[float, float, float], *, bare: bool) -> NDArray[np.float32]:
    """`[2, n, n, n]` for the reader: HU and share of lesion as the pixels show them; `bare` blacks out what is around.

    Nothing that the maker knows (matte, outline) comes in but the place.
    """
    region, parenchyma = lesion_region(one.hu, one.outline, spacing_mm=spacing_mm)
    region = region if region.any() else one.outline
    edge = (ACROSS if bare else ACROSS_SEEN) * float((6 * region.sum() * np.prod(spacing_mm) / np.pi) ** (1 / 3))
    offsets = (np.arange(GRID) + 0.5) / GRID * edge - edge / 2
    at = [c + offsets / step for c, step in zip(np.argwhere(region).mean(axis=0), spacing_mm, strict=True)]
    grid = np.stack(np.meshgrid(*at, indexing="ij"))
    hu = map_coordinates(one.hu.astype(np.float32), grid, order=1, mode="nearest")
    level = float(np.median(one.hu[parenchyma])) if parenchyma.sum() >= 60 else -860.0
    core = float(np.median(one.hu[region]))
    away = distance_transform_edt(~region, sampling=spacing_mm).astype(np.float32)
    near = map_coordinates(away, grid, order=1, mode="nearest") <= 2.0
    share = np.clip((hu - level) / max(core - level, 1.0), 0, 1) * near
    shown = share * (hu + 860) if bare else hu + 860
    return np.stack([shown / 1000, share]).astype(np.float32)


def sheets(kept: list[tuple[Place, str, dict[str, Composed]]], file: Path) -> list[str]:
    """Writes FILE, every so-manyth pair (none chosen), FILE-worst, those unlike real ones by the acceptance test, and
    FILE-strands, where most was drawn around the lesion; gives the keys.
    """

    def crop(place: Place, one: Composed) -> Crop:
        at = np.argwhere(place.region).mean(axis=0).round().astype(int)
        return one.hu, (int(at[0]), int(at[1]), int(at[2])), place.nodule.spacing_mm

    def drawn(made: dict[str, Composed]) -> NDArray[np.int64]:
        return np.asarray(np.maximum(made["better"].hu.astype(np.int64) - made["bare"].hu, 0).sum(axis=(1, 2)))

    worst = sorted((row for row in kept if row[2]["better"].outside), key=lambda row: -row[2]["better"].excess)
    most = sorted(kept, key=lambda row: -int(drawn(row[2]).sum()))[:STRAND_ROWS]
    strand_sheet(
        [
            [
                (hu, (int(drawn(made).argmax()), *at[1:]), mm)
                for hu, at, mm in (crop(place, made[way]) for way in ("real", "bare", "better"))
            ]
            for place, _, made in most
        ],
        file.with_name(f"{file.stem}-strands{file.suffix}"),
    )
    lines = []
    for name, chosen in (("", kept[:: max(len(kept) // SHEET_ROWS, 1)]), ("-worst", worst)):
        rows = chosen[:SHEET_ROWS]
        if not rows:
            continue
        key = sheet(
            [(crop(place, made["real"]), crop(place, made["better"])) for place, _, made in rows],
            file.with_name(f"{file.stem}{name}{file.suffix}"),
        )
        lines += [
            f"{file.stem}{name}: {place.nodule.row['key']}, {place.nodule.type}, real {side}; {made['better'].unlike}"
            for (place, _, made), side in zip(rows, key, strict=True)
        ]
    return [*lines, *(f"{file.stem}-strands: {place.nodule.row['key']}, {place.nodule.type}" for place, _, _ in most)]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for table and grids.")
@click.option("--part", type=click.Choice(("test", "tune")), default="test", show_default=True, help="Which pairs.")
@click.option("--slices-mm", type=float, help="Hosts with slices averaged to about that thickness.")
@click.option("--limit", type=int, help="At most so many pairs.")
@click.option("--reader/--no-reader", default=True, help="Whether the machine reader reads them.")
@click.option(
    "--sheet",
    "sheet_file",
    type=click.Path(path_type=Path),
    help="JPEG of pairs to write, others of the worst and of strands; prints keys.",
)
@click.option("--cnn", is_flag=True, help="Let the small network read too (minutes).")
def main(
    folder: Path,
    out: Path,
    part: str,
    slices_mm: float | None,
    limit: int | None,
    reader: bool,
    sheet_file: Path | None,
    cnn: bool,
) -> None:
    """Prints the tables as Markdown and keeps the volumes of each pair in OUT."""
    found = list(nodules(folder))
    thick = (thickened(nodule, slices_mm) for nodule in found) if slices_mm else found
    matched = pairs(found, [nodule for nodule in thick if nodule is not None])
    matched = [pair for k, pair in enumerate(matched) if (k % 5 == 0) == (part == "tune")][:limit]
    out.mkdir(parents=True, exist_ok=True)
    kept: list[tuple[Place, str, dict[str, Composed]]] = []
    begun = time.perf_counter()
    for place, donor in matched:
        try:
            made = composed(place, donor)
        except HiResMedSynthError as error:
            click.echo(f"{place.nodule.row['key']}: {error.what}", err=True)
            continue
        made["real"] = Composed(hu=place.nodule.hu, outline=place.nodule.majority)
        kept.append((place, str(donor.card.patient_id), made))
    click.echo(f"{len(kept)} pairs in {time.perf_counter() - begun:.0f} s")
    (out / f"{part}.pickle").write_bytes(pickle.dumps(kept))
    measured = {
        way: [lesion_measures(made[way].hu, made[way].outline, spacing_mm=place.nodule.spacing_mm)
              for place, _, made in kept]
        for way in ("real", *WAYS)
    }  # fmt: skip
    kinds = np.array([place.nodule.type for place, _, _ in kept])
    for kind in ("solid", "part-solid", "ground-glass", "calcified"):
        chosen = np.flatnonzero(kinds == kind)
        if len(chosen) < 3:
            continue
        click.echo(f"\n{kind}, n = {len(chosen)}\n\n| measure | | n | median (95 %) | over real, same place | apart |")
        click.echo("| --- | --- | --- | --- | --- | --- |")
        parts = {way: [measured[way][k] for k in chosen] for way in WAYS}
        click.echo("\n".join(table([measured["real"][k] for k in chosen], parts)))
    for title, chosen in (("solid", kinds == "solid"), ("other types", kinds != "solid")):
        if not chosen.any():
            continue
        ways = {
            way: [(made[way].hu, made[way].outline, place.nodule.spacing_mm)
                  for (place, _, made), fits in zip(kept, chosen, strict=True) if fits]
            for way in ("real", "own", "alpha", "bare", "better")
        }  # fmt: skip
        click.echo("\n".join([f"\n{title}: what lesions hang together with\n", *strand_table(ways)]))
    redrawn = [sum("drawn again" in line for line in made["better"].log) for _, _, made in kept]
    unlike = sum(any("no try" in line for line in made["better"].log) for _, _, made in kept)
    click.echo(f"\nbetter: {np.count_nonzero(redrawn)} of {len(kept)} drawn again, {unlike} taken at their best")
    if sheet_file is not None:
        click.echo("\n".join(["", *sheets(kept, sheet_file)]))
    if reader:
        read(kept, cnn=cnn)


def read(kept: list[tuple[Place, str, dict[str, Composed]]], *, cnn: bool) -> None:
    """Prints what the machine reader can tell apart."""
    groups = [place.nodule.patient_id for place, _, _ in kept]
    spacings = [place.nodule.spacing_mm for place, _, _ in kept]

    def grids(way: str, *, bare: bool) -> NDArray[np.float32]:
        return np.stack([window(made[way], s, bare=bare) for (_, _, made), s in zip(kept, spacings, strict=True)])

    bare = {way: grids(way, bare=True) for way in ("real", *WAYS)}
    click.echo("\n| against | reader | n | AUC (95 %) |\n| --- | --- | --- | --- |")
    for against, way in (*(("real", way) for way in reversed(WAYS)), ("own", "better"), ("own", "alpha")):
        reading = feature_reader(bare[against], bare[way], groups, groups, 0)
        click.echo(f"| {against}, {way} | features | {len(kept)} + {len(kept)} | {_auc(reading)} |")
    half = np.random.default_rng(0).permutation(len(kept))
    first, second = np.sort(half[: len(half) // 2]), np.sort(half[len(half) // 2 :])
    names = np.array(groups)
    control = feature_reader(bare["real"][first], bare["real"][second], names[first], names[second], 0)
    click.echo(f"| real, other real | features | {len(first)} + {len(second)} | {_auc(control)} |")
    if cnn:
        seen = grids("real", bare=False)
        for way in ("better", "alpha", "paper", "paste", "own"):
            reading = cnn_reader(seen, grids(way, bare=False), groups, groups, 0)
            click.echo(f"| real, {way} | network | {len(kept)} + {len(kept)} | {_auc(reading)} |")
        shown = {way: grids(way, bare=False) for way in ("real", "better", "bare", "alpha", "own")}
        click.echo("\n".join(fusion_saliency.table(shown, groups)))


def _auc(reading: object) -> str:
    low, high = reading.interval()  # type: ignore[attr-defined]
    return f"{reading.auc:.2f} ({low:.2f} to {high:.2f})"  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
