"""`hiresmedsynth generate`: new backgrounds, or variants of an image, into a folder."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.cli.code_prior import code_prior_of, code_prior_options
from HiResMedSynthLib.cli.exit_codes import EXIT_CANCELLED
from HiResMedSynthLib.cli.options import (
    check_device,
    computing_in,
    device_option,
    image_options,
    precision_option,
    progress_line,
    warn,
)
from HiResMedSynthLib.cli.outputs import OutputFolder
from HiResMedSynthLib.errors import ExportError, SettingsError
from HiResMedSynthLib.versions import installed_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

    from HiResMedSynthLib.background.find_model import BackgroundModel
    from HiResMedSynthLib.background.find_prior import BackgroundPrior
    from HiResMedSynthLib.background.make import MadeImage
    from HiResMedSynthLib.image import MedicalImage
    from HiResMedSynthLib.privacy import TrainingDescriptors

RECORD, SHEET = "generated.json", "sheet.png"
HALF_WRITTEN = re.compile(r"\.[\w-]+-[0-9a-f]{16}\.(dcm|nrrd|png|json)")  # by a call that was killed
MOST_ON_SHEET = 32
NEEDED_BY = {  # option: those that do nothing without it
    ("like", "--like", "IMAGE"): ("--strength", "--slice", "--series", "--spacing-mm"),
    ("prior_name", "--prior", "NAME"): ("--prior-steps", "--temperature", "--guidance"),
    ("sex", "--sex", "F or M"): ("--guidance",),
}
LARGEST_SEED = 2**53
EXAMPLES = """\b
Examples:
  hiresmedsynth generate --domain cxr --count 4 --seed 1 --out films
  hiresmedsynth generate --sex F --format nrrd --size 512 --out films
  hiresmedsynth generate --like FILM.dcm --strength 0.5 --count 8 --out variants
  hiresmedsynth generate --like CT_FOLDER --slice 40 --strength 0.3 --out slices
  hiresmedsynth generate --prior my-prior --prior-steps 32 --temperature 0.9 --sex F --guidance 2 --out films
  hiresmedsynth compose films/cxr-0001.dcm --lesions 2 --size-mm 15:25 --out case
"""


@click.command("generate", epilog=EXAMPLES)
@click.option("--out", type=OutputFolder(), required=True, help="Folder for the images.")
@click.option("--domain", help="cxr, lung-ct, or what a model of yours makes [default: as --like, or cxr].")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many.")
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST_SEED),
    default=0,
    show_default=True,
    help="Of the first image; the next has the next seed. The same seed makes the same image on the same device.",
)
@click.option("--sex", type=click.Choice(("F", "M")), help="Of the patient [default: either].")
@click.option("--like", type=click.Path(path_type=Path), help="Vary this image: keep a part of its anatomy.")
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="With --like: share that is drawn anew, in connected regions.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("dicom", "nrrd", "png")),
    default="dicom",
    show_default=True,
    help="DICOM (Secondary Capture), NRRD, or PNG of 16 bits (which tells no pixel spacing).",
)
@click.option("--model", "model_name", help="Model (hiresmedsynth models list) [default: that of the domain].")
@code_prior_options
@click.option("--size", type=click.IntRange(min=1), help="Side in pixels [default: the model's own].")
@click.option("--watermark", is_flag=True, help="Mark all pixels invisibly (hiresmedsynth verify finds it).")
@click.option("--keep-copies", is_flag=True, help="Keep near copies of training images, which are drawn again else.")
@click.option(
    "--overwrite", is_flag=True, help="Replace the images of an earlier call, each as soon as a new one is whole."
)
@device_option
@precision_option
@image_options
def generate_command(out: Path, like: Path | None, overwrite: bool, **options: Any) -> None:
    """Makes synthetic backgrounds that `compose` takes: chest films, or those of a model of yours.

    \b
    Writes DOMAIN-SEED.dcm (or .nrrd, .png) for each seed, sheet.png with all of
    them, and generated.json: seeds, model, pixel spacing, and what was redrawn.
    Ctrl-C keeps the images that are whole; with --overwrite those not yet replaced stay too.
    """
    from HiResMedSynthLib.background.domain_values import domain_like, values_of
    from HiResMedSynthLib.background.find_model import find_background, load_background
    from HiResMedSynthLib.export.image_file import check_format
    from HiResMedSynthLib.placement.film_view import doubts_about
    from HiResMedSynthLib.privacy import NO_DESCRIPTORS, descriptors_of

    _refuse_ignored()
    check_device(options["device"])
    _check_target(out, overwrite)
    image = None if like is None else _read(like, options)
    domain = options["domain"]
    if image is not None and domain is None and options["model_name"] is None:
        domain = domain_like(image)
    found = find_background(options["model_name"], domain, on_note=warn)
    model = load_background(found, options["device"])
    prior = code_prior_of(options, model)
    check_format(values_of(model.cascade.domain).hounsfield, options["form"])
    for doubt in () if image is None else doubts_about(image):
        warn(doubt)
    descriptors = descriptors_of(found.card.name)
    if descriptors is None:
        warn(NO_DESCRIPTORS)
    run = _Run(out, model, prior, descriptors, image, options)
    try:
        run.prepare(overwrite)
        for index in range(options["count"]):
            run.make(index)
    except KeyboardInterrupt:
        if not run.films:
            raise
        run.finish(complete=False)
        _say(f"Cancelled: {run.what_stays()}")
        click.get_current_context().exit(EXIT_CANCELLED)
    except Exception:
        if run.films:
            with contextlib.suppress(ExportError):  # the first error is the one to tell
                run.finish(complete=False)
            _say(f"Stopped: {run.what_stays()}")
        raise
    finally:
        run.close()
    run.finish(complete=True)
    again = f", {run.redrawn} near copies of training images drawn again" if run.redrawn else ""
    click.echo(f"{out}: {len(run.films)} synthetic image(s) by the model {model.identity}{again}")


class _Run:
    """One call: what was made so far."""

    def __init__(
        self,
        out: Path,
        model: BackgroundModel,
        prior: BackgroundPrior | None,
        descriptors: TrainingDescriptors | None,
        like: MedicalImage | None,
        options: dict[str, Any],
    ) -> None:
        self.out, self.model, self.prior, self.descriptors = out, model, prior, descriptors
        self.like, self.options = like, options
        self.films: list[dict[str, Any]] = []
        self.tiles: list[tuple[str, Image]] = []
        self.redrawn = 0
        self.said: set[str] = set()
        self.earlier: list[str] = []  # images of an earlier call that aren't replaced yet
        self.made_folder = False

    def prepare(self, overwrite: bool) -> None:
        """Makes the folder, or notes an earlier call's files, which stand until there are new ones."""
        try:
            if not self.out.exists():
                self.out.mkdir()
                self.made_folder = True
            elif overwrite:
                for part in _half_written(self.out):
                    part.unlink(missing_ok=True)
                self.earlier = [name for name in _own_files(self.out) if name not in (RECORD, SHEET)]
        except OSError as error:
            raise _unwritable(self.out, error) from error

    def make(self, index: int) -> None:
        """Makes and writes the image of that number."""
        from HiResMedSynthLib.background.make import generate

        options, total = self.options, self.options["count"]
        seed = options["seed"] + index
        copies_stay = options["keep_copies"] or self.descriptors is None
        with computing_in(options):
            made = generate(
                self.model,
                seed=seed,
                sex=options["sex"],
                like=self.like,
                strength=options["strength"] if self.like is not None else 1.0,
                size=options["size"],
                prior=self.prior,
                why_copy=None if copies_stay or self.descriptors is None else self.descriptors.why_copy,
                on_step=lambda name: progress_line(index, total, f"seed {seed}: {name}"),
            )
        self._write(made)
        if sys.stderr.isatty():
            progress_line(index + 1, total, f"seed {seed} is written")
        else:
            click.echo(f"[{index + 1}/{total}] seed {seed} is written", err=True)

    def _write(self, made: MadeImage) -> None:
        from HiResMedSynthLib.background.sheet import thumbnail
        from HiResMedSynthLib.export.image_file import suffix_of, write_image_file
        from HiResMedSynthLib.mark import amplitude_for, marked
        from HiResMedSynthLib.privacy_record import NEAR_COPY

        file = self.out / f"{self.model.cascade.domain}-{made.seed:04d}{suffix_of(self.options['form'])}"
        entry: dict[str, Any] = {"file": file.name, "seed": made.seed, "sex": made.sex, "redrawn": list(made.redrawn)}
        notes, how = list(made.notes), made.how
        if made.redrawn:
            how += f"; drawn again {len(made.redrawn)} time(s), being near a training film"
        if self.descriptors is not None:
            near = self.descriptors.nearness(made.coarse, made.finished)
            entry["likeness_to_training_film"] = [round(value, 4) for value in near.likeness]
            entry["near_copy"] = bool(near.why)
            if near.why:
                how += f"; {NEAR_COPY}"
                notes.append(f"seed {made.seed} is near a training image: {near.why}")
        entry["size"] = [made.image.rows, made.image.columns]
        spacing = made.image.pixel_spacing_mm
        entry["pixel_spacing_mm"] = None if spacing is None else list(spacing)
        entry["spacing_source"] = made.image.spacing_source
        entry["notes"] = notes
        image = made.image
        if self.options["watermark"]:
            entry["watermark"] = amplitude_for(image)
            image = marked(image, amplitude=entry["watermark"])
        films, earlier = [*self.films, entry], [name for name in self.earlier if name != file.name]
        with self._record_put_back():
            write_image_file(image, file, how=how, sex=made.sex, just_before=lambda: self._put_record(films, earlier))
        self.films, self.earlier = films, earlier
        self.redrawn += len(made.redrawn)
        if len(self.tiles) < MOST_ON_SHEET:
            sex = "" if made.sex is None else f", {made.sex}"
            self.tiles.append((f"seed {made.seed}{sex}", thumbnail(made.image)))
        for note in (*notes, *made.redrawn_notes):
            if note not in self.said:
                self.said.add(note)
                warn(note)

    def what_stays(self) -> str:
        """What the folder holds after a call that was cut off."""
        earlier = f", and {len(self.earlier)} of an earlier call" if self.earlier else ""
        return f"{len(self.films)} of {self.options['count']} image(s) are whole and stay in {self.out}{earlier}"

    def finish(self, *, complete: bool) -> None:
        """Writes the record and the sheet of what is whole; an earlier call's other images go if all new ones are."""
        from HiResMedSynthLib.background.sheet import background_sheet
        from HiResMedSynthLib.export.image_file import save_png

        try:
            while complete and self.earlier:
                (self.out / self.earlier[-1]).unlink(missing_ok=True)
                self.earlier.pop()
            self._put_record(self.films, self.earlier)
            with written_aside(self.out / SHEET) as aside:
                save_png(background_sheet(self.tiles), aside)
        except OSError as error:
            raise _unwritable(self.out, error) from error

    def _put_record(self, films: list[dict[str, Any]], earlier: list[str]) -> None:
        """Writes generated.json: before an image takes its name, so that none is ever without its record."""
        import torch

        record: dict[str, Any] = {
            "synthetic": True,
            "use": "research only, not for diagnosis",
            "domain": self.model.cascade.domain,
            "model": {"name": self.model.name, "sha256": self.model.sha256},
            "prior": None if self.prior is None else self.prior.recorded(),
            "like": None if self.like is None else {"pixel_sha256": self.like.pixel_sha256},
            "strength": None if self.like is None else self.options["strength"],
            "precision": self.options["precision"],
            "device": self.options["device"],  # a seed's film differs a little between devices and versions
            "versions": {**installed_versions(), "torch": torch.__version__},
            "copies_looked_for": self.descriptors is not None,
            "images": films,
        }
        if earlier:
            record["images_of_an_earlier_call"] = earlier
        with written_aside(self.out / RECORD) as aside:
            aside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @contextlib.contextmanager
    def _record_put_back(self) -> Iterator[None]:
        """Gives generated.json its earlier content where the block fails, as where the old image is open elsewhere."""
        record = self.out / RECORD
        before = record.read_bytes() if record.exists() else None
        try:
            yield
        except ExportError:
            with contextlib.suppress(OSError):
                if before is None:
                    record.unlink(missing_ok=True)
                else:
                    with written_aside(record) as aside:
                        aside.write_bytes(before)
            raise

    def close(self) -> None:
        """Leaves no empty folder behind."""
        if self.made_folder and not self.films and self.out.is_dir() and not any(self.out.iterdir()):
            self.out.rmdir()


def _say(text: str) -> None:
    """One line, in place of the progress line where there is one."""
    click.echo(("\r\x1b[K" if sys.stderr.isatty() else "") + text, err=True)


def _refuse_ignored() -> None:
    """Refuses options that do nothing without another."""
    context = click.get_current_context()
    given = {
        option.opts[0]
        for option in context.command.params
        if option.name and context.get_parameter_source(option.name) == ParameterSource.COMMANDLINE
    }
    for (name, needed, value), names in NEEDED_BY.items():
        idle = [shown for shown in names if shown in given]
        if context.params[name] is None and idle:
            raise SettingsError(
                f"{', '.join(idle)} would have no effect without {needed}", remedy=f"Give {needed} {value} too."
            )


def _read(path: Path, options: dict[str, Any]) -> MedicalImage:
    from HiResMedSynthLib.read import read_image

    return read_image(
        path, spacing_mm=options["spacing_mm"], series=options["series"], slice_index=options["slice_index"]
    )


def _check_target(out: Path, overwrite: bool) -> None:
    """Refuses a target that can't be written, before any work is done."""
    if not out.absolute().parent.is_dir():
        raise ExportError("the folder of the output doesn't exist", where=out.parent, remedy="Make it first.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise ExportError("the output already exists", where=out, remedy="Choose another --out, or add --overwrite.")
    if not out.is_dir():
        others = {out.name}
    else:
        others = {path.name for path in {*out.iterdir()} - {*_half_written(out)}} - {*_own_files(out)}
    if others:
        raise ExportError(
            f"the output holds what is not of an earlier call ({sorted(others)[0]})",
            where=out,
            remedy="Choose another --out.",
        )


def _half_written(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if HALF_WRITTEN.fullmatch(path.name)]


def _own_files(folder: Path) -> list[str]:
    """Names that the record of an earlier call lists, its sheet and the record itself."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record.get("synthetic") is not True:
            return []
        listed = [str(entry["file"]) for entry in record["images"]]
        listed += [str(name) for name in record.get("images_of_an_earlier_call", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [*(name for name in listed if Path(name).name == name and name not in (".", "..")), SHEET, RECORD]


def _unwritable(out: Path, error: OSError) -> ExportError:
    return ExportError(
        f"the images can't be written ({error.strerror or error})",
        where=out,
        remedy="Choose a disk with space, that you may write.",
    )
