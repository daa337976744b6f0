"""Puts a model file among the shipped ones: its card into the header, its hash into release.json.

`python -m Training.release_model runs/cascade.safetensors CARD.json HiResMedSynthLib/background/weights`; the file is
named by its card. CARD.json holds the fields of `HiResMedSynthLib.weights.Card`. A replaced model costs its bytes again
in git.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.weights import RELEASE_FILE, SUFFIX, Card
from HiResMedSynthLib.whole_tensors import read_whole, save_tensors


def release(source: Path, told: dict[str, Any], folder: Path) -> Path:
    """The shipped file.

    Raises:
        SettingsError: the source is no model file, or the card is none.
    """
    try:
        card = Card(**told)
        tensors, metadata = read_whole(source, "pt")
    except (OSError, TypeError, ValueError) as problem:
        raise SettingsError(
            f"This can't be released ({str(problem)[:80]})",
            where=source,
            remedy="Pack it first, and tell name, kind, data, licence and attribution in CARD.json.",
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{card.name}{SUFFIX}"
    save_tensors(target, tensors, {**metadata, "card": card.to_json()})
    list_in_release(target)
    return target


def list_in_release(target: Path) -> None:
    """Adds the file's hash to the list of the release that it lies in."""
    listed = target.parent / RELEASE_FILE
    hashes = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else {}
    hashes[target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    with written_aside(listed) as aside:
        aside.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("card", type=click.Path(path_type=Path, exists=True))
@click.argument("folder", type=click.Path(path_type=Path))
def main(source: Path, card: Path, folder: Path) -> None:
    """Puts SOURCE with the card in CARD (JSON) into FOLDER."""
    try:
        target = release(source, json.loads(card.read_text(encoding="utf-8")), folder)
    except (ValueError, HiResMedSynthError) as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
