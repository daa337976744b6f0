"""`hiresmedsynth lesion sample`: new lesions of one source by themselves, as volumes, arrays and a picture."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.cli.options import NumberRange, progress_line
from HiResMedSynthLib.errors import BankError, ExportError, SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.lesion.bank import Bank
    from HiResMedSynthLib.lesion.generators import Generator, Wish
    from HiResMedSynthLib.lesion.samples import Sample

ARRAYS, SHEET = "samples.npz", "samples.png"
DEFAULT_SIZE_MM = (6.0, 20.0)
EXAMPLES = """\b
Examples:
  hiresmedsynth lesion sample solid-10mm-a --count 20 --seed 1 --out samples
  hiresmedsynth lesion sample my-lesion --size-mm 8:12 --contrast-hu 600:800 --out samples
  hiresmedsynth lesion sample solid-10mm-a --diversity 1.5 --rotation 0 --no-flip --out samples
"""


@click.command("sample", epilog=EXAMPLES)
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to make.")
@click.option("--count", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same samples."
)
@click.option(
    "--generator",
    type=click.Choice(("deform", "singan", "learned")),
    help="How they are made [default: deform for an entry of the bank, else the one that NAME is a model of].",
)
@click.option("--model", help="Model of the generator, where NAME is an entry of the bank (models list).")
@click.option("--size-mm", type=NumberRange(), help="Diameter, smallest:largest [default: the source's].")
@click.option("--contrast-hu", type=NumberRange(), help="Mean HU above the lung [default: the lesion's own].")
@click.option("--diversity", type=click.FloatRange(0, 3), default=1.0, show_default=True, help="Of the form; 0: least.")
@click.option("--rotation", type=float, help="In-plane turn in degrees [default: drawn].")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Whether samples may be mirrored.")
@click.option("--spiculation", type=click.FloatRange(1, 5), help="For learned: 1 smooth to 5 marked.")
@click.option("--voxel-mm", type=click.FloatRange(0.1, 5), help="Edge of the voxels [default: by size, 0.4 to 1].")
@click.option("--overwrite", is_flag=True, help="Replace a folder of samples.")
def sample_command(name: str, out: Path, overwrite: bool, **options: Any) -> None:
    """Draws samples of NAME: an entry of the bank, a lesion that you trained, or a model over many lesions.

    \b
    Writes for each sample its HU on lung of -860 HU (sample-0001.nrrd) and its
    matte 0..1 (sample-0001-alpha.nrrd), with the lesion's centre at 0, 0, 0;
    samples.npz: values [n, 2, 32, 32, 32] in standard form, voxel_mm [n] ...;
    samples.png: the source and the first samples, three cuts, two windows.
    """
    import numpy as np

    from HiResMedSynthLib.lesion.samples import draw_sample

    _check_target(out, overwrite)
    bank, generator, wish, size_mm = _source(name, options)
    samples = []
    for index in range(options["count"]):
        progress_line(index, options["count"], f"drawing sample {index + 1}")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([options["seed"], index])))
        samples.append(
            draw_sample(
                generator,
                wish,
                bank,
                rng,
                size_mm=size_mm,
                contrast_hu=options["contrast_hu"],
                voxel_mm=options["voxel_mm"],
            )
        )
    _write(out, samples, bank, name if name in bank.cards else None, options["seed"])
    sizes = [sample.diameter_mm for sample in samples]
    contrasts = [sample.contrast_hu for sample in samples]
    click.echo(
        f"{out}: {len(samples)} sample(s) by {generator.identity.split()[0]}, {min(sizes):.1f} to {max(sizes):.1f} mm, "
        f"{min(contrasts):.0f} to {max(contrasts):.0f} HU above lung"
    )


def _source(name: str, options: dict[str, Any]) -> tuple[Bank, Generator, Wish, tuple[float, float]]:
    """The bank, generator, wish and range of sizes that NAME and the options mean."""
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.lesion.bank import load_bank
    from HiResMedSynthLib.lesion.generators import LEARNED_KIND, Wish, generator_for
    from HiResMedSynthLib.lesion.trained import KIND, own_bank

    bank, asked, model = load_bank(), options["generator"], options["model"]
    if name in bank.cards:
        chosen = asked or "deform"
    else:
        try:
            kind = weights.find(name).card.kind
        except weights.ModelError as error:
            if "there is no model" not in error.what:
                raise
            raise BankError(
                f"neither the bank nor your models hold '{name}'", remedy="See: hiresmedsynth lesion list, models list."
            ) from error
        chosen = asked or {KIND: "singan", LEARNED_KIND: "learned"}.get(kind, "")
        if kind not in (KIND, LEARNED_KIND) or (kind == LEARNED_KIND and chosen != "learned"):
            raise SettingsError(
                f"'{name}' is a model of kind {kind}, which '{asked or 'lesion sample'}' can't use",
                remedy="See: hiresmedsynth models list.",
            )
        if kind == KIND:
            bank = bank.with_own(own_bank((name,)))
        if kind == LEARNED_KIND or chosen == "singan":
            model = model or name
    card = bank.cards.get(name)
    diameter = 10.0 if card is None else card.diameter_mm
    wish = Wish(
        type="any" if card is None else card.type,
        stone=card is not None and card.type == "stone",
        diameter_mm=diameter,
        entry=None if chosen == "learned" or (chosen == "singan" and model) else name,
        rotation_degrees=options["rotation"],
        spiculation=options["spiculation"] or (None if card is None else card.spiculation),
        diversity=options["diversity"],
        flips=options["flip"],
    )
    if options["spiculation"] is not None and chosen != "learned":
        raise SettingsError("--spiculation is for the learned generator only", remedy="Leave it out.")
    size_mm = options["size_mm"] or (DEFAULT_SIZE_MM if card is None else (diameter, diameter))
    if not 0 < size_mm[0] <= size_mm[1] <= 200:
        raise SettingsError(f"a size of {size_mm[0]:g}:{size_mm[1]:g} mm can't be", remedy="Give 2 to 200 mm.")
    return bank, generator_for(chosen, model=model), wish, size_mm


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.absolute().parent.is_dir():
        raise SettingsError("the folder of the output doesn't exist", where=out.parent, remedy="Make it first.")
    if out.exists() and not (overwrite and (out / ARRAYS).is_file()):
        remedy = "Choose another name." if overwrite else "Choose another name, or add --overwrite."
        raise ExportError("the output already exists", where=out, remedy=remedy)


def _write(out: Path, samples: list[Sample], bank: Bank, source: str | None, seed: int) -> None:
    """Writes everything beside the target, then puts it in its place."""
    import numpy as np

    from HiResMedSynthLib.lesion.lesion_grid import to_grid
    from HiResMedSynthLib.lesion.sample_sheet import sample_sheet

    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".part", dir=out.absolute().parent))
    try:
        for number, sample in enumerate(samples, start=1):
            _write_nrrd(aside / f"sample-{number:04d}.nrrd", sample.hu, sample)
            _write_nrrd(aside / f"sample-{number:04d}-alpha.nrrd", sample.alpha, sample)
        np.savez_compressed(
            aside / ARRAYS,
            values=np.stack([sample.grid.values for sample in samples]),
            voxel_mm=np.array([sample.grid.voxel_mm for sample in samples]),
            source=np.full(len(samples), -1),
            source_name=np.array([sample.drawn.lesion.card.name for sample in samples]),
            diameter_mm=np.array([sample.diameter_mm for sample in samples]),
            contrast_hu=np.array([sample.contrast_hu for sample in samples]),
            seed=np.array(seed),
        )
        tiles = [] if source is None else [(f"real: {source}", to_grid(bank.lesion(source)).values)]
        tiles += [
            (f"{number}: {sample.diameter_mm:.1f} mm", sample.grid.values) for number, sample in enumerate(samples, 1)
        ]
        sample_sheet(tiles).save(aside / SHEET, format="PNG")
        aside.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        aside.replace(out)
    except (OSError, RuntimeError) as error:
        raise ExportError(
            "the samples can't be written", where=out, remedy="Is the folder writable, the disk full?"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_nrrd(path: Path, array: Any, sample: Sample) -> None:
    import SimpleITK as sitk

    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((sample.voxel_mm,) * 3)
    volume.SetOrigin([index * sample.voxel_mm for index in reversed(sample.corner)])
    sitk.WriteImage(volume, str(path), useCompression=True)
