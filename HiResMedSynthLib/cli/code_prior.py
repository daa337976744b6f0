"""The options of `generate` that name a prior over a background model's codes and say how it is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from HiResMedSynthLib.errors import SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.background.find_model import BackgroundModel
    from HiResMedSynthLib.background.find_prior import BackgroundPrior


def code_prior_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --prior, --prior-steps, --temperature and --guidance; `code_prior_of` reads them."""
    for option in (
        click.option(
            "--guidance",
            type=click.FloatRange(0, 20),
            default=1.0,
            show_default=True,
            help="With --prior and --sex: how strongly the codes follow the sex; 1 as learned, 0 not at all.",
        ),
        click.option(
            "--temperature",
            type=click.FloatRange(0, 10),
            default=1.0,
            show_default=True,
            help="With --prior: 1 draws as learned, less what is common, 0 the likeliest, more what is rare.",
        ),
        click.option(
            "--prior-steps",
            type=click.IntRange(8, 64),
            default=16,
            show_default=True,
            help="With a masked --prior: in how many steps the codes are drawn; the more, the fewer at once.",
        ),
        click.option(
            "--prior", "prior_name", help="Prior of yours that draws the codes (models list --kind background-prior)."
        ),
    ):
        command = option(command)
    return command


def code_prior_of(options: Mapping[str, Any], model: BackgroundModel) -> BackgroundPrior | None:
    """The prior that the options name, to be drawn from as they say; None where they name none.

    Raises:
        ModelError, ReadError: as `load_background_prior`.
        SettingsError: steps were given to a prior that has none.
    """
    if options["prior_name"] is None:
        return None
    from HiResMedSynthLib.background.find_prior import load_background_prior

    prior = load_background_prior(options["prior_name"], model)
    given = click.get_current_context().get_parameter_source("prior_steps") == ParameterSource.COMMANDLINE
    if given and not prior.in_steps:
        raise SettingsError(
            f"the prior '{prior.name}' draws one code after the other: --prior-steps would have no effect",
            remedy="Leave it out.",
        )
    return replace(
        prior, steps=options["prior_steps"], temperature=options["temperature"], guidance=options["guidance"]
    )
