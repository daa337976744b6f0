"""What a command can't write is refused by its name, before any work; warnings come before what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.errors import ExportError, SettingsError


def refused(arguments: list[str]) -> str:
    """Why the command line refuses these, as the library's error says it."""
    error = CliRunner().invoke(cli, arguments).exception
    assert isinstance(error, SettingsError | ExportError), error
    return str(error)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("lesion show solid-10mm-a --out X.NII.GZ", "'X.NII.GZ' can't be written: this writes .png alone"),
        ("lesion show solid-10mm-a --out .png", "'.png' can't be written"),
        ("danger nowhere --out d.nrrd --preview p.jpg", "'p.jpg' can't be written"),
        ("danger nowhere --out d.txt", "ends in .nrrd, .nii, .nii.gz or .mha"),
        ("prior nowhere --out d.nrrd --preview p", "'p' can't be written"),
        ("candidates nowhere --out places.xls", "ends in .csv or .json"),
        ("candidates nowhere --preview p.TIF", "'p.TIF' can't be written"),
        ("reconstruct nowhere --out film.jpeg", "ends in .dcm, .nrrd or .png"),
        ("compose nowhere --out X.NII.GZ", "'X.NII.GZ' is the name of a file"),
        ("generate --out films.Dcm", "'films.Dcm' is the name of a file"),
        ("lesion sample solid-10mm-a --out s.png", "'s.png' is the name of a file"),
        ("evaluate a b --report report.html", "'report.html' is the name of a file"),
        ("study new a b --readers A --out study.json", "'study.json' is the name of a file"),
        ("privacy check a --json verdicts.txt", "ends in .json"),
    ],
)
def test_a_name_that_cant_be_written_is_refused_before_anything_is_read(
    arguments: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused(arguments.split())
    assert not any(tmp_path.iterdir())


def test_endings_are_known_in_any_case_and_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    picture = tmp_path / "LESION.PNG"
    command = ["lesion", "show", "solid-10mm-a", "--out", str(picture)]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "already exists" in refused(command)
    assert CliRunner().invoke(cli, [*command, "--overwrite"]).exit_code == 0
    (tmp_path / "a.png").mkdir()
    assert "this is a folder" in refused([*command[:-1], str(tmp_path / "a.png"), "--overwrite"])
    assert "the folder of the output doesn't exist" in refused([*command[:-1], str(tmp_path / "no" / "a.png")])


def test_a_folder_may_be_called_like_a_file_where_it_exists(tmp_path: Path) -> None:
    (tmp_path / "scan.dcm").mkdir()
    error = (
        CliRunner().invoke(cli, ["compose", str(tmp_path / "nowhere"), "--out", str(tmp_path / "scan.dcm")]).exception
    )
    assert "is the name of a file" not in str(error)


@pytest.mark.parametrize("option", ["--size-mm", "--contrast", "--contrast-hu", "--cnr"])
def test_reversed_ranges_are_told_the_right_way_round(option: str) -> None:
    run = CliRunner().invoke(cli, ["compose", "nowhere", "--out", "case", option, "25:15"])
    assert run.exit_code == 2
    assert "'25:15' is reversed: the smaller number comes first, 15:25" in run.output


def test_warnings_are_marked_and_come_before_the_summary(cxr_file: Path, tmp_path: Path) -> None:
    arguments = ["compose", str(cxr_file), "--domain", "cxr", "--spacing-mm", "0.342,0.4175", "--size-mm", "18:20"]
    run = CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "case")])
    assert run.exit_code == 0, run.output
    lines = run.output.splitlines()
    warned = [number for number, line in enumerate(lines) if line.startswith("WARNING: ")]
    assert any("8-bit film" in lines[number] for number in warned)
    assert any("burned into the pixels" in lines[number] for number in warned)
    assert [line for line in run.stderr.splitlines() if line.startswith("WARNING: ")] == [lines[n] for n in warned]
    assert "WARNING" not in run.stdout
    assert max(warned) < next(number for number, line in enumerate(lines) if line.startswith("DICOM series"))
