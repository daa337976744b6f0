"""The folder of wheels that a backend is installed from: what is read, what is missing, what is refused."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from HiResMedSynthPanel.installation import prepare
from HiResMedSynthPanel.wheel_folder import InstallationError, WheelFolder

from Testing.extension.wheels import build_wheel, write_sums


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
