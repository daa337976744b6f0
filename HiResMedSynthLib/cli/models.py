"""`hiresmedsynth models`: what is there to generate with; own models are added and removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from HiResMedSynthLib.weights import Card

GROUP_EXAMPLES = """\b
Examples:
  hiresmedsynth models list
  hiresmedsynth models add nodules.safetensors --name our-nodules
  hiresmedsynth compose CT_FOLDER --generator learned --model our-nodules --out case
"""


@click.group("models", epilog=GROUP_EXAMPLES)
def models_group() -> None:
    """Lists, shows, adds and removes trained models.

    Those of the release are checked by its hashes, your own by the hash taken when they were added. Yours stand in the
    data folder of your account, or where the environment variable HIRESMEDSYNTH_MODELS says.
    """


@models_group.command("list", epilog="Example: hiresmedsynth models list --kind lesion-singan")
@click.option("--kind", help="Only this kind (lesion-singan, lesion-flow, background ...).")
def list_command(kind: str | None) -> None:
    """Lists the models: name, kind, size, origin, licence; then those that are damaged."""
    from HiResMedSynthLib import weights

    broken = weights.damaged()
    sound = [model for model in weights.models(kind) if model.card.name not in broken]
    kinds = {model.card.name: _kind_of(model.card) for model in sound}
    wide = max([14, *map(len, kinds.values())])
    click.echo(f"{'name':<28} {'kind':<{wide}} {'MB':>7} {'from':<8} {'created':<11} licence")
    for model in sound:
        card, origin = model.card, "release" if model.shipped else "you"
        click.echo(
            f"{card.name:<28} {kinds[card.name]:<{wide}} {card.bytes / 1e6:>7.2f} {origin:<8} {card.created[:10]:<11} "
            f"{card.licence}"
        )
    for error in broken.values():
        click.echo(f"unusable: {error}")
    click.echo(f"{len(sound)} model(s). Your own stand in {weights.store_folder()}")


def _kind_of(card: Card) -> str:
    """The kind, with what a placement model is for: a danger mask or a prior, of which pictures."""
    task = card.details.get("task")
    return f"{card.kind}: {task}" if isinstance(task, str) else card.kind


@models_group.command("show", epilog="Example: hiresmedsynth models show our-nodules --json")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(name: str, as_json: bool) -> None:
    """Shows the card of the model NAME: data, licence, measures, limits, hash; what its gate against copies catches."""
    import dataclasses

    from HiResMedSynthLib import weights
    from HiResMedSynthLib.privacy import KIND, NAME_SUFFIX

    card = dataclasses.asdict(weights.find(name).card)
    for model in weights.models(KIND):
        if model.card.name == name + NAME_SUFFIX:
            card["gate_against_copies"] = model.card.metrics
    if as_json:
        click.echo(json.dumps(card, indent=2, ensure_ascii=False))
        return
    for key, value in card.items():
        if value in ("", None, {}):
            continue
        if isinstance(value, dict):
            click.echo(f"{key}:")
            for inner, told in value.items():
                click.echo(f"  {inner}: {told}")
        else:
            click.echo(f"{key}: {value}")


@models_group.command("add", epilog="Example: hiresmedsynth models add nodules.safetensors --name our-nodules")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name to keep it under [default: that of its card].")
def add_command(file: Path, name: str | None) -> None:
    """Copies the model in FILE into your models: safetensors with a card in its header, up to 512 MiB."""
    from HiResMedSynthLib import weights

    card = weights.add(file, name).card
    click.echo(f"Added: {card.name} ({card.kind}, {card.bytes / 1e6:.2f} MB, sha256 {card.sha256[:16]}...)")


@models_group.command("remove", epilog="Example: hiresmedsynth models remove our-nodules")
@click.argument("name")
def remove_command(name: str) -> None:
    """Deletes your model NAME; those of the release stay."""
    from HiResMedSynthLib import weights

    weights.remove(name)
    click.echo(f"Removed: {name}. Cases drawn with it still replay: their lesions travel with them.")
