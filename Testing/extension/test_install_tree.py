"""What Slicer's build would install: every file of the module and of the library, and both run from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from Testing.extension.tree import LIBRARY, MODULE, ROOT, files_below, listed

STUB = Path(__file__).parent / "stub"
SCRIPTED_MODULES = Path("lib/Slicer-5.12/qt-scripted-modules")
# Nothing is compiled, so cmake need not look for a compiler or for make
NO_COMPILER = [
    *("-G", "Unix Makefiles", f"-DCMAKE_MAKE_PROGRAM={sys.executable}"),
    *(f"-DCMAKE_{language}_COMPILER={sys.executable}" for language in ("C", "CXX")),
    *(f"-DCMAKE_{language}_COMPILER_{what}=1" for language in ("C", "CXX") for what in ("ID_RUN", "FORCED")),
]


def configure(source: Path, build: Path) -> subprocess.CompletedProcess[str]:
    """cmake's configure step against the stub of Slicer."""
    settings = [f"-DSlicer_DIR={STUB}", "-DBUILD_TESTING=ON", *NO_COMPILER]
    return subprocess.run(
        [cmake(), "-S", str(source), "-B", str(build), *settings], capture_output=True, encoding="utf-8", check=False
    )


def cmake() -> str:
    program = shutil.which("cmake", path=str(Path(sys.executable).parent)) or shutil.which("cmake")
    if program is None:
        pytest.skip("cmake isn't installed: pip install cmake")
    return program


def run_installed(installed: Path, *arguments: str) -> str:
    """What a fresh interpreter prints that sees the installed folder before anything else of ours."""
    done = subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that Slicer puts on sys.path, below a path with a space and an umlaut."""
    base = tmp_path_factory.mktemp("install") / "Übungs Fälle"
    done = configure(ROOT, base / "build")
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run([cmake(), "--install", str(base / "build"), "--prefix", str(base / "Slicer")], check=True)
    return base / "Slicer" / SCRIPTED_MODULES


@pytest.mark.parametrize("folder", [MODULE, LIBRARY], ids=lambda folder: folder.name)
def test_cmake_lists_every_file_sorted(folder: Path) -> None:
    scripts, resources = listed(folder, "MODULE_PYTHON_SCRIPTS"), listed(folder, "MODULE_PYTHON_RESOURCES")
    assert scripts == sorted(set(scripts))
    assert resources == sorted(set(resources))
    assert all(name.endswith(".py") for name in scripts)
    assert not any(".." in name or name.startswith("/") for name in scripts + resources)
    there, wanted = {*scripts, *resources}, files_below(folder) - {"CMakeLists.txt"}
    assert there == wanted, f"not listed: {sorted(wanted - there)}; listed without a file: {sorted(there - wanted)}"


def test_installed_tree_equals_the_repository(installed: Path) -> None:
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    module = files_below(MODULE) - {"CMakeLists.txt"}
    library = {f"{LIBRARY.name}/{name}" for name in files_below(LIBRARY) - {"CMakeLists.txt"}}
    assert found == module | library
    for name in module:
        assert (installed / name).read_bytes() == (MODULE / name).read_bytes()


def test_a_listed_file_that_is_missing_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16.3...3.28.0)\nproject(Lost)\nfind_package(Slicer REQUIRED)\n"
        "slicerMacroBuildScriptedModule(NAME Lost SCRIPTS Lost.py)\n"
    )
    done = configure(tmp_path, tmp_path / "build")
    assert done.returncode != 0
    assert "listed, but not a file: Lost.py" in done.stderr


def test_client_and_bank_work_from_the_installed_tree(installed: Path) -> None:
    code = (
        "import sys, HiResMedSynthLib.service.client as client\n"
        "print(client.__file__)\n"
        "print(sorted({'torch', 'pydantic', 'pydicom', 'SimpleITK'} & set(sys.modules)))\n"
        "from HiResMedSynthLib.lesion.bank import load_bank\n"
        "print(len(load_bank().cards))"
    )
    file, heavy, lesions = run_installed(installed, "-c", code).splitlines()
    assert Path(file).is_relative_to(installed)
    assert heavy == "[]"
    assert int(lesions) > 0


def test_command_line_works_from_the_installed_tree(installed: Path) -> None:
    assert "compose" in run_installed(installed, "-m", "HiResMedSynthLib.cli.main", "--help")


def test_every_installed_script_compiles(installed: Path) -> None:
    for path in installed.rglob("*.py"):
        compile(path.read_bytes(), str(path), "exec")
