"""`hiresmedsynth lesion train`: a lesion outlined in the user's own image becomes a bank entry with a network."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from HiResMedSynthLib.choices import LESION_TYPES, REQUEST_TYPES
from HiResMedSynthLib.cli.exit_codes import EXIT_CANCELLED, EXIT_ERROR
from HiResMedSynthLib.cli.options import NumberRange, Numbers, check_device, device_option, image_options, warn
from HiResMedSynthLib.errors import BankError, SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from HiResMedSynthLib.cli.lesion_report import Scales
    from HiResMedSynthLib.image import MedicalImage
    from HiResMedSynthLib.lesion.lesion import Lesion
    from HiResMedSynthLib.lesion.outline import Outline
    from HiResMedSynthLib.lesion.singan import SinGan
    from HiResMedSynthLib.weights import Card

SOURCE, CHECKPOINT = "source.sha256", "checkpoint.safetensors"
LARGEST_SIDE = 64
SAMPLES_COMPARED = 20  # with the lesion, for the card
LINE_EVERY_S = 15.0  # between two lines of progress where there is no terminal
HOLDS_VOXELS = "The model's file holds the voxels of the lesion itself: keep and share it as you would the image."
LIMITS = (
    f"Varies one lesion; samples share its tissue and much of its form. {HOLDS_VOXELS} For research, not for diagnosis."
)
EXAMPLES = """\b
Examples:
  hiresmedsynth lesion train CT_FOLDER --mask nodule.nrrd --type solid --name my-lesion
  hiresmedsynth lesion train CT_FOLDER --box 210,140,238,169,4,9 --name my-lesion
  hiresmedsynth lesion train crop.png --mask outline.png --spacing-mm 0.7 --window-hu -1350:150
  hiresmedsynth lesion train CT_FOLDER --mask nodule.nrrd --name my-lesion --resume
"""


@click.command("train", epilog=EXAMPLES)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--mask", type=click.Path(path_type=Path), help="Outline: NRRD, NIfTI, MHA or PNG on the image's grid.")
@click.option("--label", type=click.IntRange(min=1), help="Label of the mask, where it holds several.")
@click.option(
    "--box",
    type=Numbers("ROW,COL,ROW,COL[,SLICE,SLICE]", 4, 6),
    help="Instead of a mask: a box around it, two corners, ends included; the dense piece inside is taken.",
)
@click.option(
    "--type", "lesion_type", type=click.Choice(LESION_TYPES), default="solid", show_default=True, help="What it is."
)
@click.option("--name", help="How it is listed [default: by type, size and content].")
@click.option(
    "--window-hu", type=NumberRange(), help="For an 8-bit picture of a CT: HU of black and of white, LOW:HIGH."
)
@click.option(
    "--preset",
    type=click.Choice(("better", "paper", "tiny")),
    default="better",
    show_default=True,
    help="better: minutes; paper: the published schedule, hours; tiny: to try the command.",
)
@click.option(
    "--dimensions",
    type=click.Choice(("2", "3")),
    help="Train on the middle slice or the volume [default: the image's].",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the training.")
@click.option("--time-limit", type=click.FloatRange(min=0), default=math.inf, help="Minutes; --resume goes on.")
@device_option
@click.option("--resume", is_flag=True, help="Go on with the interrupted training of that name.")
@click.option("--restart", is_flag=True, help="Throw the interrupted training of that name away.")
@image_options
def train_command(image: Path, name: str | None, preset: str, seed: int, **options: Any) -> None:
    """Cuts the outlined lesion out of IMAGE and trains a network on it that draws others like it.

    The lesion is then an entry of your bank (lesion list, compose --bank-entry) and a model (lesion sample,
    compose --generator singan). Ctrl-C keeps what was learned; the same command with --resume goes on. A report with
    curves and samples stays in your model store until the model is removed.
    """
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.cli.lesion_report import gaps, read_scales
    from HiResMedSynthLib.lesion.own import is_synthetic
    from HiResMedSynthLib.lesion.trained import training_values, write_trained

    check_device(options["device"])
    lesion, flat = _lesion(image, options)
    origin = "cut out by the user"
    if is_synthetic(lesion.card):
        origin = "cut out of a synthetic image by the user"
        warn("the image is itself synthetic: the lesion isn't listed as a real one.")
    name = weights.check_name(name or _default_name(lesion))
    lesion = dataclasses.replace(lesion, card=dataclasses.replace(lesion.card, name=name))
    _refuse_taken(name)
    folder = weights.store_folder() / weights.RUNS / name
    _prepare(folder, _digest(lesion), resume=options["resume"], restart=options["restart"])
    click.echo(
        f"{name}: {lesion.card.type}, {lesion.card.diameter_mm:g} mm, preset {preset}, "
        f"{'one slice' if flat else 'three dimensions'}"
    )
    began = time.monotonic()
    network = _trained(training_values(lesion, flat=flat), preset, seed, folder, options, name=name)
    scales, samples = read_scales(folder), _samples(network)
    card = weights.Card(
        name=name,
        kind="lesion-singan",
        data=f"one {lesion.card.type} lesion of {lesion.card.diameter_mm:g} mm, {origin}",
        licence=lesion.card.licence,
        attribution=lesion.card.attribution,
        seed=seed,
        metrics={
            "reconstruction_rmse_hu": round(network.rmse_hu(), 1),
            "critic_gap_by_scale": " ".join(f"{gap:.3f}" for gap in gaps(scales)),
            **_nearness(network, samples),
        },
        limits=LIMITS,
        created=date.today().isoformat(),
        details={
            "source": name,
            "type": lesion.card.type,
            "diameter_mm": lesion.card.diameter_mm,
            "dimensions": network.dims,
            "preset": preset,
        },
    )
    made = folder / "model.safetensors"
    write_trained(made, network, lesion, card)
    weights.add(made)
    shutil.rmtree(folder, ignore_errors=True)
    report = _report(folder, card, scales, [network.values, *samples])
    click.echo(
        f"Trained in {_duration(time.monotonic() - began)}; gives its own lesion back within "
        f"{network.rmse_hu():.0f} HU. {HOLDS_VOXELS} {report}Next: hiresmedsynth lesion sample {name} --out samples"
    )


def _report(folder: Path, card: Card, scales: Scales, values: list[NDArray[np.float32]]) -> str:
    """Writes the report of the run; a sentence that says where it is. The model stands without it, too."""
    from HiResMedSynthLib.cli.lesion_report import write_lesion_report

    try:
        folder.mkdir(exist_ok=True)
        return f"Report: {write_lesion_report(folder, card, scales, values)}. "
    except OSError as error:
        warn(f"the report of the training can't be written ({error.strerror}).")
        return ""


def _samples(network: SinGan) -> list[NDArray[np.float32]]:
    import numpy as np

    rng = np.random.default_rng(0)
    return [network.sample(rng) for _ in range(SAMPLES_COMPARED)]


def _nearness(network: SinGan, samples: list[NDArray[np.float32]]) -> dict[str, float | str]:
    """How near samples come to the one lesion that they were learned from: the Dice of their masks with its own."""
    import numpy as np

    from HiResMedSynthLib.evaluation.lesion_diversity import dice_of

    dices = [dice_of(sample, network.values) for sample in samples]
    return {
        "samples_dice_to_the_lesion_median": round(float(np.median(dices)), 3),
        "samples_dice_to_the_lesion_largest": round(max(dices), 3),
    }


def _lesion(path: Path, options: dict[str, Any]) -> tuple[Lesion, bool]:
    """The outlined lesion, and whether it is to be trained on as a slice."""
    from HiResMedSynthLib.lesion.own import own_lesion
    from HiResMedSynthLib.lesion.own_slice import as_hounsfield, own_slice
    from HiResMedSynthLib.read import read_image

    if (options["mask"] is None) == (options["box"] is None):
        raise click.UsageError("Give --mask FILE or --box ROW,COL,ROW,COL[,SLICE,SLICE], one of them.")
    image = read_image(
        path, spacing_mm=options["spacing_mm"], series=options["series"], slice_index=options["slice_index"]
    )
    if options["window_hu"] is not None:
        image = as_hounsfield(image, *options["window_hu"])
    corner, inside = _outline(image, options)
    one_slice = image.slices == 1
    if one_slice and options["dimensions"] == "3":
        raise SettingsError("one slice has no third dimension", remedy="Leave --dimensions out, or give a volume.")
    cut = own_slice if one_slice else own_lesion
    lesion = cut(
        image,
        corner,
        inside,
        name="own",
        lesion_type=options["lesion_type"],
        find=options["box"] is not None,
    )
    widest = max(lesion.alpha.shape) - 2
    if widest > LARGEST_SIDE:
        raise BankError(
            f"the lesion is {widest} voxels of {lesion.voxel_mm:g} mm long, a network here learns up to {LARGEST_SIDE}",
            remedy=f"Outline one of up to {LARGEST_SIDE * lesion.voxel_mm:.0f} mm, or the part that matters.",
        )
    return lesion, one_slice or options["dimensions"] == "2"


def _outline(image: MedicalImage, options: dict[str, Any]) -> Outline:
    from HiResMedSynthLib.lesion.outline import outline_from_box, outline_from_mask
    from HiResMedSynthLib.read import read_image

    if options["box"] is not None:
        if options["label"] is not None:
            raise SettingsError("--label belongs to a mask", remedy="Leave it out beside --box.")
        return outline_from_box(image, options["box"])
    mask = read_image(options["mask"])
    chosen = options["slice_index"]
    if image.slices == 1 and mask.slices > 1 and chosen is not None and chosen < mask.slices:
        mask = mask.single_slice(chosen)
    return outline_from_mask(image, mask, label=options["label"])


def _digest(lesion: Lesion) -> str:
    """Hash of the arrays and of the card."""
    card = repr(dataclasses.astuple(lesion.card)).encode()
    return hashlib.sha256(lesion.alpha.tobytes() + lesion.intensity_hu.tobytes() + card).hexdigest()


def _default_name(lesion: Lesion) -> str:
    return f"own-{lesion.card.type}-{round(lesion.card.diameter_mm):02d}mm-{_digest(lesion)[:4]}"


def _refuse_taken(name: str) -> None:
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.lesion.bank import load_bank

    models = {model.card.name.lower() for model in weights.models()} | {one.lower() for one in weights.damaged()}
    if name in load_bank().cards or name in REQUEST_TYPES or name.lower() in models:
        raise SettingsError(
            f"there is a lesion or model '{name}' already", remedy="Choose another --name, or: models remove."
        )


def _prepare(folder: Path, digest: str, *, resume: bool, restart: bool) -> None:
    """Makes the run's folder, or checks that the interrupted run there is of the same lesion."""
    if resume and restart:
        raise SettingsError("--resume and --restart contradict each other", remedy="Give one of them.")
    kept, interrupted = folder / SOURCE, (folder / CHECKPOINT).exists()
    if resume:
        if not interrupted:
            raise SettingsError("there is no interrupted training of that name", remedy="Leave --resume out.")
        if not kept.exists() or kept.read_text(encoding="utf-8") != digest:
            raise SettingsError(
                "the interrupted training is of another lesion or outline",
                remedy="Give the same image and outline, or another --name without --resume.",
            )
        return
    if interrupted and not restart:
        raise SettingsError(
            "an interrupted training of that name is kept",
            where=folder,
            remedy="Go on with --resume, begin anew with --restart, or choose another --name.",
        )
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(digest, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"the model store can't be written ({error.strerror})",
            where=folder,
            remedy="Choose another folder by HIRESMEDSYNTH_MODELS.",
        ) from error


def _trained(values: Any, preset: str, seed: int, folder: Path, options: dict[str, Any], *, name: str) -> SinGan:
    """The trained network; Ctrl-C and the time limit end the command with the run kept."""
    from HiResMedSynthLib.lesion.singan_train import train_singan

    interrupted = False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        click.echo("\nStopping, what was learned is kept ...", err=True)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        networks = train_singan(
            [values],
            preset,
            seed=seed,
            out=folder,
            resume=options["resume"],
            time_limit_s=60 * options["time_limit"],
            device=options["device"],
            report=_progress(),
            cancelled=lambda: interrupted,
        )
    except BaseException as problem:
        kept = (folder / CHECKPOINT).exists()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        if kept and isinstance(problem, KeyboardInterrupt):
            _end_kept(name)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        if sys.stderr.isatty():
            click.echo(err=True)
    if not networks[0].finished:
        _end_kept(name, in_time=interrupted)
    return networks[0]


def _end_kept(name: str, *, in_time: bool = True) -> NoReturn:
    """Ends a command that was cancelled, or whose time was over, and whose training can go on."""
    how = "Cancelled" if in_time else "Stopped at the time limit"
    kept = f"{how}. What was learned is kept; go on with the same command and --name {name} --resume."
    click.echo(kept, err=True)
    click.get_current_context().exit(EXIT_CANCELLED if in_time else EXIT_ERROR)


def _progress() -> Callable[[dict[str, Any]], None]:
    """Prints where the training stands: one line on a terminal, a line now and then elsewhere."""
    last = -math.inf

    def report(entry: dict[str, Any]) -> None:
        nonlocal last
        line = (
            f"scale {entry['scale'] + 1} of {entry['scales']}, iteration {entry['iteration']} of "
            f"{entry['iterations']}, critic's gap {entry['gap']:.2f}, reconstruction {entry['rec_rmse']:.3f}, "
            f"{_duration(entry['left_s'])} left"
        )
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{line}", nl=False, err=True)
        elif time.monotonic() - last > LINE_EVERY_S:
            last = time.monotonic()
            click.echo(line, err=True)

    return report


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
