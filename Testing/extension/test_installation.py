"""The backend's installation, with tiny real wheels, real virtual environments and real pip, offline."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from HiResMedSynthPanel import installation, wheel_folder
from HiResMedSynthPanel.installation import (
    candidates,
    complete,
    disk_size,
    environment_folder,
    environment_python,
    explain,
    install_commands,
    is_complete,
    prepare,
    probe,
    remove,
)
from HiResMedSynthPanel.wheel_folder import InstallationError, Wheel, WheelFolder, read_requirements
from packaging.requirements import Requirement

from Testing.extension.conftest import ROOT
from Testing.extension.wheels import build_wheel


def run(command: installation.Command) -> tuple[int, str]:
    done = subprocess.run(command.arguments, env=dict(command.environment), capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def test_install_use_cancel_repeat_remove(
    wheels: Path, plain_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PYTHONHOME", "/nowhere"), ("PIP_TARGET", str(tmp_path / "elsewhere")), ("PIP_USER", "1")):
        monkeypatch.setenv(name, value)  # what Slicer or a user may have set must not matter
    user_data = tmp_path / "Données de l'utilisateur"
    environment = environment_folder(user_data)
    checked = WheelFolder.read(wheels)
    needed, missing = checked.select()
    assert missing == []
    assert {w.name for w in needed} == {Requirement(r).name.lower() for r in read_requirements()} | {"filelock"}

    prepare(environment, needed)
    commands = install_commands(plain_python, wheels, environment)
    assert run(commands[0])[0] == 0
    assert not is_complete(environment)  # cancelled here
    assert candidates("", user_data, slicer_python=plain_python)[0].interpreter == plain_python
    with pytest.raises(InstallationError, match="taken"):
        prepare(environment, needed)
    with pytest.raises(InstallationError, match="doesn't work"):
        complete(environment, probe(environment_python(environment), ROOT))
    remove(environment)
    assert not environment.exists()

    prepare(environment, needed)
    for command in commands:
        code, output = run(command)
        assert code == 0, output
    answer = probe(environment_python(environment), ROOT)
    assert answer.usable, answer.details
    assert answer.device == "cuda Test card"
    assert "computes on cuda Test card" in answer.sentence
    complete(environment, answer)
    assert is_complete(environment)
    first = candidates("", user_data, slicer_python=plain_python)[0]
    assert first.interpreter == environment_python(environment)
    assert candidates(" /my/python ", user_data)[0].interpreter == Path("/my/python")
    assert disk_size(environment) > sum(w.unpacked for w in needed)
    assert not (tmp_path / "elsewhere").exists()

    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_text("stays")
    (environment / "link").symlink_to(outside, target_is_directory=True)
    locked = environment / "lib" / "read-only"
    locked.write_text("x")
    locked.chmod(0o400)
    remove(environment)
    assert not environment.exists()
    assert (outside / "file").read_text() == "stays"
    assert disk_size(environment) == 0
    remove(environment)  # nothing there: nothing to do


def test_pip_refuses_a_wheel_changed_after_the_check(wheels: Path, plain_python: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    needed, _ = WheelFolder.read(wheels).select()
    prepare(environment, needed)
    build_wheel(wheels, "filelock", "3.1", body="evil = True")
    make, install = install_commands(plain_python, wheels, environment)
    assert run(make)[0] == 0
    code, output = run(install)
    assert code != 0
    assert "changed since it was checked" in str(explain(output, code))
    assert not list(environment.rglob("filelock"))


def test_probe_of_a_python_without_torch(plain_python: Path) -> None:
    answer = probe(plain_python, ROOT)
    assert not answer.usable
    assert "torch>=2.6" in answer.missing
    assert "Install the backend from a folder of wheels" in answer.sentence


@pytest.mark.parametrize("mark", [None, "", "[]", '{"made_by": "someone"}'])
def test_a_folder_that_is_not_ours_is_neither_filled_nor_removed(tmp_path: Path, mark: str | None) -> None:
    (tmp_path / "file").write_text("stays")
    if mark is not None:
        (tmp_path / installation.OWNER).write_text(mark)
    with pytest.raises(InstallationError, match="nothing was removed"):
        remove(tmp_path)
    with pytest.raises(InstallationError, match="taken"):
        prepare(tmp_path, [])
    assert (tmp_path / "file").read_text() == "stays"


def test_a_link_to_our_folder_is_not_removed(tmp_path: Path) -> None:
    prepare(tmp_path / "real", [])
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    with pytest.raises(InstallationError, match="nothing was removed"):
        remove(tmp_path / "link")
    assert (tmp_path / "real" / installation.OWNER).is_file()


def test_a_full_disk_and_a_long_windows_path_are_told_before(wheels: Path, tmp_path: Path) -> None:
    needed, _ = WheelFolder.read(wheels).select()
    deep = tmp_path / ("d" * 100) / ("e" * 120)
    with pytest.raises(InstallationError, match="too long"):
        prepare(deep, needed, windows=True)
    huge = [Wheel("x", "x", "1", "0", 1, 10**18, 5, ())]
    with pytest.raises(InstallationError, match="are free"):
        prepare(tmp_path / "environment", huge)
    assert not (tmp_path / "environment").exists()


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("ERROR: No matching distribution found for torch", "missing"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("PermissionError: [Errno 13] Permission denied: 'x'", "may not be written"),
        ("/usr/bin/python3: No module named pip", "lacks pip"),
        ("something else", "exit code 3"),
    ],
)
def test_failures_are_explained(output: str, says: str) -> None:
    assert says in str(explain(output, 3))


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert read_requirements() == project["dependencies"]
    assert project["requires-python"] == ">=" + ".".join(map(str, installation.LOWEST_PYTHON))


def test_the_file_is_plain_python_3_9_and_imports_nothing_heavy() -> None:
    for module in (installation, wheel_folder):
        ast.parse(Path(module.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; import HiResMedSynthPanel.installation\n"
        "bad = {'torch', 'numpy', 'pydantic', 'pydicom', 'qt', 'slicer', 'requests'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT / "HiResMedSynth"), str(ROOT)], check=True)
