"""Option types and options that several commands share."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from HiResMedSynthLib.choices import DOMAINS, ZONES
from HiResMedSynthLib.errors import SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.image import Window
    from HiResMedSynthLib.placement.margins import Margins
    from HiResMedSynthLib.placement.method import PlacementMethod


class NumberRange(click.ParamType[tuple[float, float]]):
    """`LOW:HIGH` or one number, as a pair of floats."""

    name = "LOW:HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """The pair (low, high)."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [float(part) for part in str(value).split(":")]
        except ValueError:
            numbers = []
        if len(numbers) == 2 and numbers[0] > numbers[1]:
            low, high = reversed(str(value).split(":"))
            self.fail(f"'{value}' is reversed: the smaller number comes first, {low}:{high}", param, ctx)
        if not 1 <= len(numbers) <= 2 or not numbers[0] <= numbers[-1]:
            self.fail(f"'{value}' is not LOW:HIGH, for example 4:12", param, ctx)
        return numbers[0], numbers[-1]


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers separated by commas, of which there may be `smallest` to `largest`."""

    def __init__(self, name: str, smallest: int, largest: int) -> None:
        self.name, self.smallest, self.largest = name, smallest, largest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """The numbers as floats."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not all(map(math.isfinite, numbers)) or not self.smallest <= len(numbers) <= self.largest:
            self.fail(f"'{value}' is not {self.name}", param, ctx)
        return numbers


def _spacing(
    _ctx: click.Context, _param: click.Parameter, value: tuple[float, ...] | None
) -> tuple[float, float] | None:
    return None if value is None else (value[0], value[-1])


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how an input image is to be read: spacing_mm, series, slice_index."""
    for option in (
        click.option(
            "--slice",
            "slice_index",
            type=click.IntRange(min=0),
            help="Take this one slice (0 = first in the order of 'inspect').",
        ),
        click.option("--series", help="Which series of a folder that holds several: its number or UID."),
        click.option(
            "--spacing-mm",
            type=Numbers("ROW[,COLUMN]", 1, 2),
            callback=_spacing,
            help="Distance of rows[, of columns] in mm where the file doesn't tell; the case then says 'assumed'.",
        ),
    ):
        command = option(command)
    return command


def window_of(given: tuple[float, ...] | None) -> Window | None:
    """The display window CENTER,WIDTH that an option asks for."""
    from HiResMedSynthLib.image import Window

    return None if given is None else Window(center=given[0], width=given[1])


device_option = click.option("--device", default="cpu", show_default=True, help="cpu, or cuda for a GPU.")


precision_option = click.option(
    "--precision", type=click.Choice(("float32", "bfloat16")), default="float32", show_default=True,
    help="bfloat16 is faster on processors and GPUs made for it; grey levels differ by about a thousandth.",
)  # fmt: skip


def computing_in(options: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Within it torch computes in the precision that the options ask for, on their device."""
    import torch

    kind = torch.device(options["device"]).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=options["precision"] == "bfloat16")


def check_device(device: str) -> None:
    """Refuses a device that isn't there, before anything is written."""
    import torch

    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = None
    if asked is None or asked.type not in ("cpu", "cuda"):
        raise SettingsError(f"there is no device '{device}'", remedy="Use --device cpu or --device cuda.")
    if asked.type == "cuda" and not (torch.cuda.is_available() and (asked.index or 0) < torch.cuda.device_count()):
        raise SettingsError(
            f"there is no GPU for --device {device}", remedy="Use --device cpu, or a PyTorch and driver with CUDA."
        )


def where_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say where lesions may go; `placement_of`, `margins_of`, `networks_device` read them."""
    for option in (
        click.option(
            "--device",
            default="cpu",
            show_default=True,
            help="Where networks look at the image: cpu, or cuda for a GPU.",
        ),
        click.option(
            "--danger",
            default="auto",
            show_default=True,
            help="What is forbidden: auto (the best shipped way), rule, or a model (models list).",
        ),
        click.option("--vessel-margin-mm", type=float, default=1.0, show_default=True, help="Kept to vessels."),
        click.option("--pleura-margin-mm", type=float, default=2.0, show_default=True, help="Kept to the pleura."),
        click.option("--domain", type=click.Choice(DOMAINS), help="What the image shows [default: by modality]."),
    ):
        command = option(command)
    return command


def prior_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say where lesions are likely; `placement_of` reads them."""
    for option in (
        click.option(
            "--temperature",
            type=float,
            default=1.0,
            show_default=True,
            help="Above 1 evens the prior out, below 1 sharpens it.",
        ),
        click.option(
            "--prior",
            default="auto",
            show_default=True,
            help="Where lesions are likely: auto, density (places of real ones), distances (the same, and how far "
            "they lie from the lung's border and vessels), or a model.",
        ),
    ):
        command = option(command)
    return command


def placement_of(options: Mapping[str, Any]) -> PlacementMethod:
    """The way to find places that the options ask for."""
    from HiResMedSynthLib.placement.method import PlacementMethod

    prior, temperature = options.get("prior", "auto"), options.get("temperature", 1.0)
    return PlacementMethod(danger=options["danger"], prior=prior, temperature=temperature)


def networks_device(options: Mapping[str, Any]) -> str:
    """The device that the options ask for; "cpu" is not looked for, since that needs torch.

    Raises:
        SettingsError: it isn't there.
    """
    device: str = options["device"]
    if device != "cpu":
        check_device(device)
    return device


def margins_of(options: Mapping[str, Any]) -> Margins:
    """The margins that the options ask for."""
    from HiResMedSynthLib.placement.margins import Margins

    return Margins(pleura_mm=options["pleura_margin_mm"], vessel_mm=options["vessel_margin_mm"])


class Quota(click.ParamType[tuple[str, int]]):
    """`ZONE=COUNT`, as a pair."""

    name = "ZONE=COUNT"  # left, right, upper, lower, left-upper ...

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """The pair (zone, count)."""
        if isinstance(value, tuple):
            return value
        zone, _, count = str(value).partition("=")
        if zone not in ZONES or not count.isdigit() or int(count) < 1:
            advice = f". Write --zone {zone}=2" if zone in ZONES else ""
            self.fail(f"'{value}' is not ZONE=COUNT with a zone of {', '.join(ZONES)}{advice}", param, ctx)
        return zone, int(count)


def in_chosen_slice(places: tuple[tuple[float, ...], ...], slice_index: int | None) -> tuple[tuple[float, ...], ...]:
    """Places (row, column[, slice]), without their slice where it is the one of --slice."""
    return tuple(place[:2] if place[2:] == (slice_index,) else place for place in places)


def warn(text: str) -> None:
    """Says what a user should beware of, on the error stream, on a line of its own."""
    cleared = "\r\x1b[K" if sys.stderr.isatty() else ""  # a line of progress may stand there
    click.echo(f"{cleared}WARNING: {text}", err=True)


def progress_line(done: int, total: int, what: str) -> None:
    """Shows progress as one line on a terminal; silent elsewhere."""
    if sys.stderr.isatty():
        end = "\n" if done >= total else ""
        click.echo(f"\r\x1b[K[{done}/{total}] {what}{end}", nl=False, err=True)
