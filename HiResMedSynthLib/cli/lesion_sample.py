"""`hiresmedsynth lesion sample`: new lesions of one source by themselves, as volumes, arrays and a picture."""

from __future__ import annotations

import contextlib
import shutil
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.aside import bring_back, new_name_beside, swap
from HiResMedSynthLib.choices import GENERATORS, use_of
from HiResMedSynthLib.cli.exit_codes import EXIT_CANCELLED
from HiResMedSynthLib.cli.options import NumberRange, progress_line
from HiResMedSynthLib.cli.outputs import OutputFolder
from HiResMedSynthLib.errors import BankError, ExportError, SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.lesion.bank import Bank
    from HiResMedSynthLib.lesion.generators import Generator, Wish
    from HiResMedSynthLib.lesion.samples import Sample

ARRAYS, SHEET, VALUES = "samples.npz", "samples.png", "values.part"
DEFAULT_SIZE_MM = (6.0, 20.0)
EXAMPLES = """\b
Examples:
  hiresmedsynth lesion sample solid-10mm-a --count 20 --seed 1 --out samples
  hiresmedsynth lesion sample my-lesion --size-mm 8:12 --contrast-hu 600:800 --out samples
  hiresmedsynth lesion sample solid-10mm-a --diversity 1.5 --rotation 0 --no-flip --out samples
"""


@click.command("sample", epilog=EXAMPLES)
@click.argument("name")
@click.option("--out", type=OutputFolder(), required=True, help="Folder to make.")
@click.option("--count", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same samples."
)
@click.option(
    "--generator",
    type=click.Choice(GENERATORS),
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
@click.option("--overwrite", is_flag=True, help="Replace a folder that holds samples only.")
def sample_command(name: str, out: Path, overwrite: bool, **options: Any) -> None:
    """Draws samples of NAME: an entry of the bank, a lesion that you trained, or a model over many lesions.

    \b
    Writes for each sample its HU on lung of -860 HU (sample-0001.nrrd) and its
    matte 0..1 (sample-0001-alpha.nrrd), with the lesion's centre at 0, 0, 0;
    samples.npz: values [n, 2, 32, 32, 32] in standard form, voxel_mm [n] ...;
    samples.png: the source and the first samples, three cuts, two windows.
    Ctrl-C keeps the samples that are whole.
    """
    import numpy as np

    from HiResMedSynthLib.lesion.samples import draw_sample

    _check_target(out, overwrite)
    bank, generator, wish, size_mm = _source(name, options)
    source, count = name if name in bank.cards else None, options["count"]
    written = _Written(out)
    try:
        for index in range(count):
            progress_line(index, count, f"drawing sample {index + 1}")
            stream = np.random.SeedSequence(options["seed"], spawn_key=(index,))
            written.add(
                draw_sample(
                    generator,
                    wish,
                    bank,
                    np.random.Generator(np.random.PCG64(stream)),
                    size_mm=size_mm,
                    contrast_hu=options["contrast_hu"],
                    voxel_mm=options["voxel_mm"],
                )
            )
            _say_tenth(index + 1, count)
    except KeyboardInterrupt:
        if not written.facts:
            raise
        written.finish(bank, source, options["seed"])
        click.echo(f"Cancelled: {len(written.facts)} of {count} sample(s) are whole and stay in {out}", err=True)
        click.get_current_context().exit(EXIT_CANCELLED)
    else:
        written.finish(bank, source, options["seed"])
    finally:
        written.close()
    sizes, contrasts = ([fact[key] for fact in written.facts] for key in ("diameter_mm", "contrast_hu"))
    click.echo(
        f"{out}: {count} sample(s) by {generator.identity.split()[0]}, {min(sizes):.1f} to {max(sizes):.1f} mm, "
        f"{min(contrasts):.0f} to {max(contrasts):.0f} HU above lung"
    )


def _say_tenth(done: int, count: int) -> None:
    """Where there is no terminal, a line at every tenth."""
    if not sys.stderr.isatty() and done * 10 // count > (done - 1) * 10 // count:
        click.echo(f"{done} of {count} samples are drawn", err=True)


def _source(name: str, options: dict[str, Any]) -> tuple[Bank, Generator, Wish, tuple[float, float]]:
    """The bank, generator, wish and range of sizes that NAME and the options mean."""
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.lesion.bank import load_bank
    from HiResMedSynthLib.lesion.generators import LEARNED_KIND, Wish, generator_for
    from HiResMedSynthLib.lesion.trained import KIND, own_bank, refuse_unfinished

    bank, asked, model = load_bank(), options["generator"], options["model"]
    if name in bank.cards:
        chosen = asked or "deform"
    else:
        try:
            kind = weights.find(name).card.kind
        except weights.NoModelError as error:
            refuse_unfinished(name)
            raise BankError(
                f"neither the bank nor your models hold '{name}'", remedy="See: hiresmedsynth lesion list, models list."
            ) from error
        chosen = asked or {KIND: "singan", LEARNED_KIND: "learned"}.get(kind, "")
        if kind not in (KIND, LEARNED_KIND) or (kind == LEARNED_KIND and chosen != "learned"):
            raise SettingsError(
                f"'{asked or 'lesion sample'}' can't use the model '{name}': it {use_of(kind)}",
                remedy="See: hiresmedsynth models list.",
            )
        if kind == KIND:
            bank = bank.with_own(own_bank((name,)))
        if kind == LEARNED_KIND or chosen == "singan":
            model = model or name
    if model is not None and chosen != "deform":
        _check_model(model, name, chosen, in_bank=name in load_bank().cards)
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


def _check_model(model: str, name: str, chosen: str, *, in_bank: bool) -> None:
    """Refuses a model that draws something else than NAME."""
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.lesion.trained import KIND

    if model == name or (chosen == "learned" and in_bank):
        return
    theirs = str(weights.find(model, KIND if chosen == "singan" else None).card.details.get("source"))
    own = {name} if in_bank else {name, str(weights.find(name).card.details.get("source"))}
    if chosen != "singan" or theirs not in own:
        raise SettingsError(
            f"the model '{model}' isn't one of '{name}': its samples would be of another lesion",
            remedy=f"Leave --model out, or draw from it: lesion sample {model}.",
        )


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.absolute().parent.is_dir():
        raise SettingsError("the folder of the output doesn't exist", where=out.parent, remedy="Make it first.")
    bring_back(out)
    if not out.exists():
        return
    own = _own_files(out)
    if not (overwrite and own):
        remedy = "Choose another name." if overwrite else "Choose another name, or add --overwrite."
        raise ExportError("the output already exists", where=out, remedy=remedy)
    others = sorted(path.name for path in out.iterdir() if path.name not in own or not path.is_file())
    if others:
        raise ExportError(
            f"the output holds what is not of an earlier call ({others[0]})", where=out, remedy="Choose another --out."
        )


def _own_files(folder: Path) -> set[str]:
    """Names that an earlier call wrote, by the number of samples in its arrays; empty where there are none."""
    import numpy as np

    try:
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            count = len(arrays["diameter_mm"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return set()
    return {ARRAYS, SHEET, *(name for number in range(1, count + 1) for name in _volumes(number))}


def _volumes(number: int) -> tuple[str, str]:
    return f"sample-{number:04d}.nrrd", f"sample-{number:04d}-alpha.nrrd"


class _Written:
    """The samples that are whole, in a folder beside the target until `finish` puts it in its place."""

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.facts: list[dict[str, Any]] = []
        try:
            self.aside = new_name_beside(self.out, ".part")
            self.aside.mkdir()
            self.values = (self.aside / VALUES).open("wb")
        except OSError as error:
            raise _unwritable(out) from error

    def add(self, sample: Sample) -> None:
        """Writes a sample's volumes and keeps its values on disk."""
        hu, alpha = _volumes(len(self.facts) + 1)
        try:
            _write_nrrd(self.aside / hu, sample.hu, sample)
            _write_nrrd(self.aside / alpha, sample.alpha, sample)
            self.values.write(sample.grid.values.astype("float32").tobytes())
        except (OSError, RuntimeError) as error:
            raise _unwritable(self.out) from error
        self.facts.append(
            {
                "voxel_mm": sample.grid.voxel_mm,
                "source_name": sample.drawn.lesion.card.name,
                "diameter_mm": sample.diameter_mm,
                "contrast_hu": sample.contrast_hu,
            }
        )

    def finish(self, bank: Bank, source: str | None, seed: int) -> None:
        """Writes arrays and picture of what is whole, then puts the folder in its place."""
        import numpy as np

        from HiResMedSynthLib.export.image_file import save_png
        from HiResMedSynthLib.lesion.lesion_grid import SIZE, to_grid
        from HiResMedSynthLib.lesion.own import is_synthetic
        from HiResMedSynthLib.lesion.sample_sheet import sample_sheet

        count = len(self.facts)
        try:
            for name in _volumes(count + 1):  # of a sample that was cut off
                (self.aside / name).unlink(missing_ok=True)
            self.values.close()
            values = np.memmap(self.aside / VALUES, np.float32, "r", shape=(count, 2, SIZE, SIZE, SIZE))
            columns: dict[str, Any] = {key: np.array([fact[key] for fact in self.facts]) for key in self.facts[0]}
            np.savez_compressed(
                self.aside / ARRAYS, values=values, source=np.full(count, -1), seed=np.array(seed), **columns
            )
            tiles = []
            if source is not None:
                what = "synthetic" if is_synthetic(bank.cards[source]) else "real"
                tiles.append((f"{what}: {source}", to_grid(bank.lesion(source)).values))
            tiles += [
                (f"{number}: {fact['diameter_mm']:.1f} mm", np.asarray(values[number - 1]))
                for number, fact in enumerate(self.facts, 1)
            ]
            save_png(sample_sheet(tiles), self.aside / SHEET)
            del values, tiles
            (self.aside / VALUES).unlink()
            _put(self.aside, self.out)
        except (OSError, RuntimeError) as error:
            raise _unwritable(self.out) from error

    def close(self) -> None:
        """Leaves nothing beside the target."""
        with contextlib.suppress(OSError):
            self.values.close()
        shutil.rmtree(self.aside, ignore_errors=True)


def _put(fresh: Path, out: Path) -> None:
    """Puts the fresh folder in the place of an earlier one; what somebody else put there meanwhile stays."""
    swap(fresh, out)
    if fresh.exists():  # the earlier one
        own = _own_files(fresh)
        for path in fresh.iterdir():
            if path.name not in own and not (out / path.name).exists():
                path.rename(out / path.name)


def _unwritable(out: Path) -> ExportError:
    return ExportError(
        "the samples can't be written", where=out, remedy="Choose a disk with space, that you may write."
    )


def _write_nrrd(path: Path, array: Any, sample: Sample) -> None:
    import SimpleITK as sitk

    from HiResMedSynthLib.write_volume import write_whole

    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing((sample.voxel_mm,) * 3)
    volume.SetOrigin([index * sample.voxel_mm for index in reversed(sample.corner)])
    write_whole(volume, path, useCompression=True)
