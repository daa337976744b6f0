"""The backend's installation, with tiny real wheels, real virtual environments and real pip, offline."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "HiResMedSynth"))

from HiResMedSynthPanel import installation, wheel_folder  # noqa: E402
from HiResMedSynthPanel.installation import (  # noqa: E402
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
    probe_command,
    read_probe,
    remove,
)
from HiResMedSynthPanel.wheel_folder import InstallationError, Wheel, WheelFolder, read_requirements  # noqa: E402

FAKE_TORCH = """
class cuda:
    is_available = staticmethod(lambda: True)
    get_device_name = staticmethod(lambda number: "Test card")
"""


def build_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
    body: str = "",
    extra: dict[str, bytes] | None = None,
    header: str = "",
) -> Path:
    """A wheel that pip accepts: METADATA, WHEEL and RECORD, one package."""
    module = re.sub(r"\W", "_", name)
    info = f"{module}-{version}.dist-info"
    lines = "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = {
        f"{module}/__init__.py": body.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{header}{lines}".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        **(extra or {}),
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    file = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return file


def write_sums(folder: Path) -> None:
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in sorted(folder.glob("*.whl"))]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A stand-in of the whole backend, one of which needs another, in a folder with an awkward name."""
    folder = tmp_path / "Räder für CT & MR 画像"
    folder.mkdir()
    for line in read_requirements():
        wanted = Requirement(line)
        version = str(next(iter(wanted.specifier)).version)
        is_torch = wanted.name == "torch"
        needs = ("filelock>=1", "nvidia-thing; platform_system == 'Never'") if is_torch else ()
        build_wheel(folder, wanted.name, version, requires=needs, body=FAKE_TORCH if is_torch else "")
    build_wheel(folder, "filelock", "3.1")
    build_wheel(folder, "unneeded")
    write_sums(folder)
    return folder


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with pip and nothing else, under a path with a space."""
    environment = tmp_path_factory.mktemp("plain python")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, capture_output=True)
    return environment_python(environment)


def run(command: installation.Command) -> tuple[int, str]:
    done = subprocess.run(command.arguments, env=dict(command.environment), capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


# --- the whole way


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


# --- the folder of wheels


def test_sizes_and_progress(wheels: Path) -> None:
    steps = list(WheelFolder.reading(wheels))
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    checked = WheelFolder.read(wheels)
    assert sum(w.packed for w in checked.wheels.values()) == sum(f.stat().st_size for f in wheels.glob("*.whl"))
    torch = checked.wheels["torch"]
    with zipfile.ZipFile(wheels / torch.file_name) as archive:
        assert torch.unpacked == sum(entry.file_size for entry in archive.infolist())


def test_windows_line_ends_byte_order_mark_and_binary_star_are_read(wheels: Path) -> None:
    lines = (wheels / "SHA256SUMS").read_text().splitlines()
    text = "".join(f"{line[:64].upper()} *./{line[66:]}\r\n" for line in lines)
    (wheels / "SHA256SUMS").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (wheels / "Thumbs.db").write_bytes(b"x")
    assert "torch" in WheelFolder.read(wheels).wheels


def test_what_is_missing_is_listed(wheels: Path) -> None:
    (next(wheels.glob("filelock-*"))).unlink()
    (next(wheels.glob("pydicom-*"))).unlink()
    build_wheel(wheels, "pydicom", "2.4.4")
    write_sums(wheels)
    _, missing = WheelFolder.read(wheels).select()
    assert missing == ["filelock>=1 (for torch)", "pydicom>=3.0.1 (for the backend, the folder has 2.4.4)"]


def test_extras_markers_and_circles_are_followed(tmp_path: Path) -> None:
    build_wheel(tmp_path, "a", requires=("b[fast]>=1", "c; python_version < '3'"))
    build_wheel(tmp_path, "b", requires=("a", "d; extra == 'fast'", "e; extra == 'slow'"))
    build_wheel(tmp_path, "d")
    write_sums(tmp_path)
    (tmp_path / "list.txt").write_text("a  # comment\n")
    needed, missing = WheelFolder.read(tmp_path).select(tmp_path / "list.txt")
    assert ([w.name for w in needed], missing) == (["a", "b", "d"], [])


def test_a_local_version_satisfies_and_is_pinned_exactly(tmp_path: Path) -> None:
    build_wheel(tmp_path, "torch", "2.13.0+cpu")
    write_sums(tmp_path)
    (tmp_path / "list.txt").write_text("torch>=2.6\n")
    needed, missing = WheelFolder.read(tmp_path).select(tmp_path / "list.txt")
    assert missing == []
    prepare(tmp_path / "environment", needed)
    assert (tmp_path / "environment" / "backend.lock").read_text().startswith("torch==2.13.0+cpu --hash=sha256:")


def damage(folder: Path, how: str) -> None:
    """Spoils a good folder in one way."""
    sums = folder / "SHA256SUMS"
    wheel = next(folder.glob("torch-*"))
    if how == "no sums":
        sums.unlink()
    elif how == "empty sums":
        sums.write_text("")
        [f.unlink() for f in folder.glob("*.whl")]
    elif how == "utf-16 sums":
        sums.write_bytes(sums.read_text().encode("utf-16"))
    elif how == "wrong hash":
        sums.write_text(sums.read_text().replace("a", "b").replace("1", "2"))
    elif how == "rubbish line":
        sums.write_text(sums.read_text() + "hello\n")
    elif how == "two hashes":
        sums.write_text(sums.read_text() + f"{'0' * 64}  {wheel.name}\n")
    elif how in {"../x.whl", "/x.whl", "a\\x.whl", "c:x.whl", "x.exe", "sub/x.whl", "..whl"}:
        sums.write_text(sums.read_text() + f"{'0' * 64}  {how}\n")
    elif how == "unlisted":
        build_wheel(folder, "late")
    elif how == "listed but missing":
        wheel.unlink()
    elif how == "symbolic link":
        shutil.move(wheel, folder.parent / wheel.name)
        wheel.symlink_to(folder.parent / wheel.name)
    elif how == "source package":
        (folder / "torch-2.6.tar.gz").write_bytes(b"x")
    elif how == "cut off":
        wheel.write_bytes(wheel.read_bytes()[:-30])
        write_sums(folder)
    elif how == "cut off after listing":
        wheel.write_bytes(wheel.read_bytes()[:-30])
    elif how == "text file":
        wheel.write_text("not a zip")
        write_sums(folder)
    elif how == "wrong name":
        wheel.rename(folder / "numpy2-2.6-py3-none-any.whl")
        write_sums(folder)
    elif how == "no wheel name":
        wheel.rename(folder / "torch.whl")
        write_sums(folder)
    elif how == "other platform":
        build_wheel(folder, "z", tag="cp311-cp311-win_amd64" if os.name != "nt" else "cp311-cp311-macosx_11_0_arm64")
        write_sums(folder)
    elif how == "other Python":
        build_wheel(folder, "z", tag="cp27-none-any")
        write_sums(folder)
    elif how == "requires other Python":
        build_wheel(folder, "z", header="Requires-Python: <3\n")
        write_sums(folder)
    elif how == "two versions":
        build_wheel(folder, "unneeded", "2.0")
        write_sums(folder)
    elif how == "path in zip":
        build_wheel(folder, "z", extra={"../../evil.py": b""})
        write_sums(folder)
    elif how == "bad requirement":
        build_wheel(folder, "z", requires=("=== ;;",))
        write_sums(folder)
    elif how == "no metadata":
        with zipfile.ZipFile(folder / "z-1.0-py3-none-any.whl", "w") as archive:
            archive.writestr("z.py", "")
        write_sums(folder)


DAMAGES = [
    "no sums",
    "empty sums",
    "utf-16 sums",
    "wrong hash",
    "rubbish line",
    "two hashes",
    "../x.whl",
    "/x.whl",
    "a\\x.whl",
    "c:x.whl",
    "x.exe",
    "sub/x.whl",
    "..whl",
    "unlisted",
    "listed but missing",
    "symbolic link",
    "source package",
    "cut off",
    "cut off after listing",
    "text file",
    "wrong name",
    "no wheel name",
    "other platform",
    "other Python",
    "requires other Python",
    "two versions",
    "path in zip",
    "bad requirement",
    "no metadata",
]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_spoilt_folder_is_refused(wheels: Path, how: str) -> None:
    damage(wheels, how)
    with pytest.raises(InstallationError) as caught:
        WheelFolder.read(wheels)
    assert caught.value.where is not None
    assert "offline_install.md" in caught.value.remedy


def test_a_folder_is_checked_for_the_interpreter_that_gets_it(wheels: Path) -> None:
    build_wheel(wheels, "z", tag="cp312-none-any")
    write_sums(wheels)
    assert "z" in WheelFolder.read(wheels, "3.12.10").wheels
    with pytest.raises(InstallationError, match=r"3\.13\.1"):
        WheelFolder.read(wheels, "3.13.1")


# --- the environment's folder


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


# --- probing


def test_probe_of_the_projects_own_interpreter() -> None:
    answer = probe(Path(sys.executable), ROOT, timeout_s=60)
    assert answer.usable, answer.sentence
    assert answer.device == "cpu" or answer.device.startswith("cuda ")
    assert answer.missing == ()
    assert answer.python == ".".join(map(str, sys.version_info[:3]))


def test_probe_of_a_python_without_torch(plain_python: Path) -> None:
    answer = probe(plain_python, ROOT)
    assert not answer.usable
    assert "torch>=2.6" in answer.missing
    assert "Install the backend from a folder of wheels" in answer.sentence


def test_probe_says_that_the_library_is_not_there(tmp_path: Path) -> None:
    answer = read_probe(probe_answer(library=False), 0, Path("p"))
    assert "Install the extension again" in answer.problem


def script(tmp_path: Path, body: str) -> Path:
    file = tmp_path / "mein pythön"
    file.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
@pytest.mark.parametrize(
    "body", ["sleep 60", "sleep 60 & sleep 60", "yes", "yes hiresmedsynth_probe", "echo hello; exec sleep 60"]
)
def test_probe_of_a_program_that_hangs(tmp_path: Path, body: str) -> None:
    answer = probe(script(tmp_path, body), ROOT, timeout_s=0.5)
    assert "took too long and was stopped" in answer.sentence


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
@pytest.mark.parametrize(
    "body", ["exit 0", "echo hello", "printf '\\377\\000[[['", 'echo \'{"hiresmedsynth_probe": 1, "python": 3}\'']
)
def test_probe_of_a_program_that_prints_rubbish(tmp_path: Path, body: str) -> None:
    answer = probe(script(tmp_path, body), ROOT)
    assert "didn't answer like a Python" in answer.sentence
    assert "exit code 0" in answer.sentence


def test_probe_of_what_is_no_program(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path, Path("nul\0byte")):
        assert "can't be started" in probe(path, ROOT).sentence


def probe_answer(**changes: object) -> str:
    versions = {Requirement(line).name: "99" for line in read_requirements()}
    facts = {"python": "3.12.10", "versions": versions, "library": True, "device": "cpu", **changes}
    kept = {key: value for key, value in facts.items() if value is not None}
    return "noise\n" + json.dumps({**kept, "hiresmedsynth_probe": 1}) + "\nmore noise"


def test_answers_are_read() -> None:
    here = Path("python")
    assert read_probe(probe_answer(), 0, here).sentence == "Python 3.12.10 with torch 99; computes on cpu."
    assert "needs 3.11 or newer" in read_probe(probe_answer(python="3.9.1"), 0, here).problem
    assert "half an answer" in read_probe(probe_answer(versions=None), 1, here).problem
    assert (
        "can't be loaded (OSError: x.dll)"
        in read_probe(probe_answer(device=None, device_error="OSError: x.dll"), 0, here).problem
    )
    assert "exit code -11" in read_probe(probe_answer(device=None), -11, here).problem
    slow = read_probe(probe_answer(device=None), None, here)
    assert slow.usable
    assert "slow to load" in slow.sentence


def test_the_probe_works_in_isolated_mode_too(tmp_path: Path) -> None:
    (tmp_path / "HiResMedSynthLib").mkdir()
    program, *rest = probe_command(Path(sys.executable), tmp_path).arguments
    answer = subprocess.run([program, "-I", *rest], capture_output=True, text=True, check=True, timeout=120)
    assert read_probe(answer.stdout, 0, Path(program)).usable


# --- the rest


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
