"""`hiresmedsynth verify`: whether a file or folder is of this program."""

from __future__ import annotations

from pathlib import Path

import click

from HiResMedSynthLib.cli.options import progress_line

EXIT_NO_SIGN = 3
EXIT_MIXED = 4
EXAMPLES = """\b
Examples:
  hiresmedsynth verify case7
  hiresmedsynth verify case7/dicom/IM0007.dcm
  hiresmedsynth verify screenshot.png
  hiresmedsynth verify DATA_SET
"""


@click.command("verify", epilog=EXAMPLES)
@click.argument("path", type=click.Path(path_type=Path))
def verify_command(path: Path) -> None:
    """Says whether PATH, a file or a folder, was made by HiResMedSynth.

    \b
    It looks at the header (tag), at the case that the header names (case), and at
    the pixels for the invisible mark of --watermark (mark). "cannot tell" is the
    answer where a mark could not be seen: no sign proves nothing.
    Of a folder it looks at every DICOM file, picture and volume, hidden ones apart;
    the mark of made films takes about half a second each.
    Exit code 0: made by HiResMedSynth; 3: no sign of it; 4: a folder that is mixed,
    in which some files don't say so; 1: it can't be read.
    """
    from HiResMedSynthLib.provenance import provenance_of

    found = provenance_of(path, progress=lambda done, total: progress_line(done, total, "pictures looked at"))
    click.echo(found.summary())
    if found.unmarked:
        click.get_current_context().exit(EXIT_MIXED)
    if not found.ours:
        click.get_current_context().exit(EXIT_NO_SIGN)
