"""`hiresmedsynth verify`: whether a file or folder is of this program."""

from __future__ import annotations

from pathlib import Path

import click

EXIT_NO_SIGN = 3
EXAMPLES = """\b
Examples:
  hiresmedsynth verify case7
  hiresmedsynth verify case7/dicom/IM0007.dcm
  hiresmedsynth verify screenshot.png
"""


@click.command("verify", epilog=EXAMPLES)
@click.argument("path", type=click.Path(path_type=Path))
def verify_command(path: Path) -> None:
    """Says whether PATH, a file or an exported folder, was made by HiResMedSynth.

    \b
    It looks at the header (tag), at the case that the header names (case), and at
    the pixels for the invisible mark of --watermark (mark). "cannot tell" is the
    answer where a mark could not be seen: no sign proves nothing.
    Exit code 0: made by HiResMedSynth; 3: no sign of it; 1: it can't be read.
    """
    from HiResMedSynthLib.provenance import provenance_of

    found = provenance_of(path)
    click.echo(found.summary())
    if not found.ours:
        click.get_current_context().exit(EXIT_NO_SIGN)
