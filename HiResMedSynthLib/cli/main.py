"""The command `hiresmedsynth`: finds the sub-command, and turns the library's errors into one clear paragraph."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from HiResMedSynthLib import __version__
from HiResMedSynthLib.cli.exit_codes import EXIT_BUG, EXIT_CANCELLED, EXIT_ERROR
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.free_memory import is_short_of_memory

# name -> (module of the package cli, attribute, one line of help): nothing is imported until it is called
COMMANDS = {
    "compose": ("compose", "compose_command", "Place lesions in an image and export the synthetic case."),
    "dataset": ("dataset", "dataset_command", "Make many cases from a spec: a data set with splits and a card."),
    "inspect": ("inspect", "inspect_command", "Show what is understood of an image, and what is odd about it."),
    "data": ("data", "data_group", "Check labelled folders before training on them."),
    "lesion": ("lesion", "lesion_group", "List and show the lesions of the bank, train your own, draw samples."),
    "models": ("models", "models_group", "List, show, add and remove trained models."),
    "generate": ("generate", "generate_command", "Make chest films, or vary a given one."),
    "reconstruct": ("reconstruct", "reconstruct_command", "Rebuild an image from its codes."),
    "danger": ("placement", "danger_command", "Show where lesions must not go."),
    "prior": ("placement", "prior_command", "Show where lesions are likely."),
    "candidates": ("placement", "candidates_command", "Propose places for lesions, or judge your own."),
    "study": ("study", "study_group", "Make, run and score a reader study of real and synthetic images."),
    "evaluate": ("evaluate", "evaluate_command", "Compare synthetic with real images; write a report."),
    "verify": ("verify", "verify_command", "Tell whether a file or folder was made by HiResMedSynth."),
    "privacy": ("privacy", "privacy_group", "Find near copies of a model's training films."),
    "serve": ("serve", "serve_command", "Run the backend that the Slicer panel talks to."),
}


class LazyGroup(click.Group):
    """A group that imports a sub-command only when it is called, so that --help stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The sub-command, imported now; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(import_module(f"HiResMedSynthLib.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, which knows only imported commands: an unknown one is answered with those like it."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            like = " or ".join(f"'{name}'" for name in get_close_matches(args[0], COMMANDS))
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean {like}?" if like else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of commands, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, _, help_line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Research only, not for diagnosis. Example: hiresmedsynth compose CT_FOLDER --lesions 3 --seed 7 --out CASE",
)
@click.version_option(__version__, prog_name="hiresmedsynth")
def cli() -> None:
    """Compose synthetic radiological cases: lesions placed in real or generated images, exported as marked DICOM."""


def main() -> None:
    """Runs the command line; exit code 0 = done, 1 = refused, 2 = wrong usage, 70 = our bug, 130 = cancelled."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's products are small; where cores are busy threads stall
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HiResMedSynthError as error:
        _say(f"Error: {error}")
        sys.exit(EXIT_ERROR)
    except (KeyboardInterrupt, click.Abort):
        _say("Cancelled. Nothing was left under the name of the output.")
        sys.exit(EXIT_CANCELLED)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_ERROR)
    except Exception as error:
        if is_short_of_memory(error):
            _say(
                "Error: there is not enough memory for this. Work on one slice (--slice NUMBER) or a smaller image, "
                "or close other programs."
            )
            sys.exit(EXIT_ERROR)
        if os.environ.get("HIRESMEDSYNTH_DEBUG"):
            raise
        _say(
            f"Error: an unforeseen problem, a bug of HiResMedSynth {__version__} ({type(error).__name__}: {error}). "
            "Set HIRESMEDSYNTH_DEBUG=1, run it again and send us what it prints."
        )
        sys.exit(EXIT_BUG)
    sys.exit(code if isinstance(code, int) else 0)


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
