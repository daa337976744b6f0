"""`hiresmedsynth lesion`: the bank, listed and shown."""

from __future__ import annotations

from pathlib import Path

import click

from HiResMedSynthLib.errors import ExportError


@click.group("lesion", epilog="Example: hiresmedsynth lesion show solid-10mm-a --out lesion.png")
def lesion_group() -> None:
    """Lists and shows the lesions of the bank."""


@lesion_group.command("list", epilog="Example: hiresmedsynth lesion list --type calcified")
@click.option("--type", "lesion_type", help="Only this type.")
def list_command(lesion_type: str | None) -> None:
    """Lists the lesions: name, size, type, ratings, source patient and licence."""
    from HiResMedSynthLib.lesion.bank import load_bank

    cards = [card for card in load_bank().cards.values() if lesion_type in (None, card.type)]
    head = f"{'name':<20} {'mm':>5} {'type':<13} {'spiculation':>11} {'noise HU':>8} {'patient':<15} licence"
    click.echo(head)
    for card in sorted(cards, key=lambda card: (card.type, card.diameter_mm)):
        spiculation = "-" if card.spiculation is None else f"{card.spiculation:.1f}"
        noise = "-" if card.noise_hu is None else f"{card.noise_hu:.1f}"
        click.echo(
            f"{card.name:<20} {card.diameter_mm:>5.1f} {card.type:<13} {spiculation:>11} {noise:>8} "
            f"{card.patient_id or '-':<15} {card.licence}"
        )
    click.echo(f"{len(cards)} lesion(s). Ratings: readers' mean, 1 (none) to 5 (marked).")


@lesion_group.command("show", epilog="Example: hiresmedsynth lesion show solid-10mm-a --out lesion.png")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="PNG to write.")
def show_command(name: str, out: Path) -> None:
    """Draws the lesion NAME: three cuts, lung and soft-tissue window, and its matte."""
    from HiResMedSynthLib.lesion.bank import load_bank
    from HiResMedSynthLib.lesion.sheet import lesion_sheet

    lesion = load_bank().lesion(name)
    try:
        lesion_sheet(lesion).save(out, format="PNG")
    except OSError as error:
        raise ExportError(
            f"the picture can't be written ({error.strerror})", where=out, remedy="Choose a folder that you may write."
        ) from error
    click.echo(f"{out}: {lesion.card.attribution}. {lesion.card.licence}")
