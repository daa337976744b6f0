"""`hiresmedsynth lesion`: the bank, listed and shown; own lesions trained, samples drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from HiResMedSynthLib.choices import LESION_TYPES
from HiResMedSynthLib.cli.lesion_sample import sample_command
from HiResMedSynthLib.cli.lesion_train import train_command
from HiResMedSynthLib.cli.outputs import OutputFile, check_free
from HiResMedSynthLib.errors import ExportError

if TYPE_CHECKING:
    from HiResMedSynthLib.lesion.lesion import LesionCard

REAL = "real cut-out"  # so begins the origin of a real lesion's card
GROUP_EXAMPLES = """\b
Examples:
  hiresmedsynth lesion show solid-10mm-a --out lesion.png
  hiresmedsynth lesion train CT_FOLDER --mask nodule.nrrd --name my-lesion
  hiresmedsynth lesion sample my-lesion --count 20 --seed 1 --out samples
"""


@click.group("lesion", epilog=GROUP_EXAMPLES)
def lesion_group() -> None:
    """Lists and shows the lesions of the bank, trains on your own, and draws samples."""


lesion_group.add_command(train_command)
lesion_group.add_command(sample_command)


@lesion_group.command("list", epilog="Example: hiresmedsynth lesion list --type calcified")
@click.option("--type", "lesion_type", type=click.Choice(LESION_TYPES), help="Only this type.")
def list_command(lesion_type: str | None) -> None:
    """Lists the lesions: name, size, type, ratings, source patient and licence; your own come last."""
    from HiResMedSynthLib.lesion.bank import load_bank

    shipped = [card for card in load_bank().cards.values() if lesion_type in (None, card.type)]
    own, notes = _own_cards()
    own = [card for card in own if lesion_type in (None, card.type)]
    click.echo(f"{'name':<20} {'mm':>5} {'type':<13} {'spiculation':>11} {'noise HU':>8} {'patient':<15} licence")
    for card in sorted(shipped, key=lambda card: (card.type, card.diameter_mm)) + own:
        spiculation = "-" if card.spiculation is None else f"{card.spiculation:.1f}"
        noise = "-" if card.noise_hu is None else f"{card.noise_hu:.1f}"
        click.echo(
            f"{card.name:<20} {card.diameter_mm:>5.1f} {card.type:<13} {spiculation:>11} {noise:>8} "
            f"{card.patient_id or '-':<15} {card.licence}"
        )
    for note in notes:
        click.echo(f"unusable: {note}")
    also = f", {len(own)} of them your own" if own else ""
    click.echo(f"{len(shipped) + len(own)} lesion(s){also}. Ratings: readers' mean, 1 (none) to 5 (marked).")


@lesion_group.command("show", epilog="Example: hiresmedsynth lesion show solid-10mm-a --out lesion.png")
@click.argument("name")
@click.option("--out", type=OutputFile(".png"), required=True, help="PNG to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def show_command(name: str, out: Path, overwrite: bool) -> None:
    """Draws the lesion NAME: three cuts, lung and soft-tissue window, and its matte."""
    from HiResMedSynthLib.aside import written_aside
    from HiResMedSynthLib.export.image_file import MARK, save_png
    from HiResMedSynthLib.lesion.bank import load_bank
    from HiResMedSynthLib.lesion.sheet import lesion_sheet
    from HiResMedSynthLib.lesion.trained import own_bank

    check_free(out, overwrite)
    own = name not in load_bank().cards and name in {card.name for card in _own_cards()[0]}
    lesion = own_bank((name,)).lesion(name) if own else load_bank().lesion(name)
    card = lesion.card
    told = f"{card.origin}. {card.attribution}. {card.licence}"
    try:
        with written_aside(out) as aside:
            save_png(lesion_sheet(lesion), aside, told if card.origin.startswith(REAL) else f"{told}. {MARK}")
    except OSError as error:
        raise ExportError(
            f"the picture can't be written ({error.strerror})", where=out,
            remedy="Choose a disk with space, that you may write.",
        ) from error  # fmt: skip
    click.echo(f"{out}: {card.attribution}. {card.licence}")


def _own_cards() -> tuple[list[LesionCard], list[str]]:
    """Cards of the user's own lesions, and what is wrong with those that can't be read."""
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.errors import HiResMedSynthError
    from HiResMedSynthLib.lesion.trained import KIND, own_bank

    cards, notes = [], []
    for model in weights.models(KIND):
        try:
            cards += list(own_bank((model.card.name,)).cards.values())
        except HiResMedSynthError as error:
            notes.append(str(error))
    return cards, notes
