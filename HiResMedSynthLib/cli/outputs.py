"""Option types for what a command writes: a name that can't be written is refused before any work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from HiResMedSynthLib.errors import ExportError, SettingsError

MAP_ENDINGS = (".nrrd", ".nii", ".nii.gz", ".mha")
FILE_ENDINGS = (  # of images and tables: nobody means a folder by them
    *(*MAP_ENDINGS, ".mhd", ".dcm", ".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".gif"),
    *(".csv", ".json", ".toml", ".html", ".pdf", ".zip"),
)


class OutputFile(click.ParamType[Path]):
    """A file to write, whose name must end in one of some endings, in whatever case."""

    name = "file"

    def __init__(self, *endings: str) -> None:
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        """The path; SettingsError where its ending names something else."""
        path = Path(value)
        if not _ends_in(path, self.endings):
            raise SettingsError(
                f"'{path.name}' can't be written: this writes {_listed(self.endings)} alone",
                remedy=f"Give a name that ends in {_listed(self.endings)}.",
            )
        return path


class OutputFolder(click.ParamType[Path]):
    """A folder to make."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        """The path; SettingsError where it looks like a file's and isn't a folder that exists."""
        path = Path(value)
        if _ends_in(path, FILE_ENDINGS) and not path.is_dir():
            raise SettingsError(
                f"a folder is made here, and '{path.name}' is the name of a file", remedy="Give the name of a folder."
            )
        return path


def check_free(file: Path, overwrite: bool) -> None:
    """Refuses a file that exists, unless it may be replaced, or whose folder doesn't.

    Raises:
        SettingsError, ExportError.
    """
    if not file.absolute().parent.is_dir():
        raise SettingsError("the folder of the output doesn't exist", where=file.parent, remedy="Make it first.")
    if file.is_dir():
        raise ExportError("this is a folder, and a file is written here", where=file, remedy="Choose another name.")
    if file.exists() and not overwrite:
        raise ExportError("the output already exists", where=file, remedy="Choose another name, or add --overwrite.")


def _ends_in(path: Path, endings: tuple[str, ...]) -> bool:
    """Whether something stands before one of the endings."""
    name = path.name.lower()
    return any(name.endswith(ending) and len(name) > len(ending) for ending in endings)


def _listed(endings: tuple[str, ...]) -> str:
    return " or ".join(filter(None, [", ".join(endings[:-1]), endings[-1]]))
