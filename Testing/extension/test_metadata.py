"""What the extensions index checks of a submission, offline: its entry, the root CMakeLists.txt, README, repository.

The numbers of the rules are those of docs/extension_checklist.md.
"""

from __future__ import annotations

import json
import random
import re
import struct
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from Testing.extension.tree import LIBRARY, MODULE, ROOT, bytes_of_history, files_below, git

ENTRY = ROOT / "docs" / "extensions_index" / "HiResMedSynth.json"
REPOSITORY = "SlicerHiResMedSynth"
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKLIST = (ROOT / "docs" / "extension_checklist.md").read_text(encoding="utf-8")
LICENCE_NAMES = {"LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt"}
TYPES_OF_KEYS = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "dicom_support_rule": str,
    "enabled": bool,
    "tier": int,
}
CATEGORIES = {"Image Synthesis", "Simulation", "Training"}  # those of the index's list that would suit us
PROGRAMS = {".exe", ".dll", ".so", ".dylib", ".pyd", ".jar", ".msi", ".deb", ".whl", ".pyc"}
WEIGHTS = {".pt", ".pth", ".ckpt", ".onnx", ".pkl", ".h5"}
MIB = 2**20


def entry() -> dict[str, object]:
    parsed = json.loads(ENTRY.read_text(encoding="utf-8"))
    assert isinstance(parsed, dict)
    return parsed


def setting(name: str) -> str:
    """A variable of the root CMakeLists.txt, with OWNER's variable put in."""
    found = re.search(rf'set\({name}\s+"([^"]*)"\)', CMAKE)
    assert found, f"CMakeLists.txt sets no {name}"
    return found[1].replace("${HiResMedSynth_OWNER}", owner() if name != "HiResMedSynth_OWNER" else "")


def owner() -> str:
    return setting("HiResMedSynth_OWNER")


def picture_urls() -> list[str]:
    """Icon first, by the very pattern with which the index looks for them (double quotes, parenthesis right after)."""
    icon = re.findall(r'set\s*\(EXTENSION_ICONURL\s*"([^"]+)"[ ]*\)', CMAKE)
    screenshots = re.findall(r'set\s*\(EXTENSION_SCREENSHOTURLS\s*"([^"]+)"\)', CMAKE)
    assert len(icon) == len(screenshots) == 1
    return [icon[0], *screenshots[0].split()]


def file_of(url: str) -> Path:
    """The file in this tree that the address will show."""
    prefix = f"https://raw.githubusercontent.com/{owner()}/{REPOSITORY}/{entry()['scm_revision']}/"
    assert url.startswith(prefix), f"{url} is not below {prefix}"
    return ROOT / url.removeprefix(prefix)


# --- the index's checks of a submission


def test_rule_3_a_clone_stays_small() -> None:
    in_tree = sum((ROOT / name).stat().st_size for name in files_below(ROOT))
    assert bytes_of_history(ROOT) + in_tree <= 100 * MIB


def test_rule_3_is_measured_alike_where_a_checkout_holds_objects_twice(tmp_path: Path) -> None:
    git("init", "-q", folder=tmp_path)
    (tmp_path / "noise").write_bytes(random.Random(1).randbytes(MIB))
    git("add", "noise", folder=tmp_path)
    git("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-qm", "Noise", folder=tmp_path)
    loose = bytes_of_history(tmp_path)
    git("repack", "-qa", folder=tmp_path)  # without -d the loose objects stay
    assert MIB < loose < 1.01 * MIB
    assert bytes_of_history(tmp_path) == pytest.approx(loose, rel=0.01)


def test_rule_3_no_big_file_in_history_but_the_models_that_ship() -> None:
    paths = dict(line.partition(" ")[::2] for line in git("rev-list", "--objects", "HEAD").splitlines())
    assert not [path for path in paths.values() if Path(path).suffix in WEIGHTS]
    listed = git("cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objectsize)").splitlines()
    sizes = {name: int(size) for name, size in (line.split() for line in listed) if name in paths}
    large = {name: paths[name] for name, size in sizes.items() if size > 5 * MIB}
    assert all(re.fullmatch(r"HiResMedSynthLib/\w+/weights/\w+\.safetensors", path) for path in large.values())
    assert sum(sizes[name] for name in large) <= 2 * 14 * MIB  # shipped, and replaced once


def test_rule_4_keys_and_types_of_the_entry() -> None:
    found = entry()
    assert {"$schema", "category", "scm_url"} <= set(found) <= set(TYPES_OF_KEYS)
    for key, value in found.items():
        assert type(value) is TYPES_OF_KEYS[key], key
    assert re.fullmatch(
        r"https://raw\.githubusercontent\.com/Slicer/Slicer/main/Schemas/"
        r"slicer-extension-catalog-entry-schema-v1\.0\.2\.json#",
        str(found["$schema"]),
    )
    assert found.get("scm_type", "git") == "git"
    assert found["tier"] in range(1, 6)


def test_rule_5_and_15_the_entry_is_formatted_as_the_index_wants_it() -> None:
    data = ENTRY.read_bytes()
    assert b"\r" not in data
    assert b"\t" not in data
    assert data.decode() == json.dumps(entry(), indent=2) + "\n"


def test_rule_6_the_name_does_not_start_with_slicer() -> None:
    assert not ENTRY.stem.lower().startswith("slicer")
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]+", ENTRY.stem)


def test_rule_7_category_is_one_of_the_index_and_the_same_everywhere() -> None:
    assert entry()["category"] in CATEGORIES
    assert entry()["category"] == setting("EXTENSION_CATEGORY")
    assert f'"{entry()["category"]}"' in (MODULE / "HiResMedSynth.py").read_text(encoding="utf-8")


def test_rule_8_and_10_address_of_the_repository() -> None:
    address = urlsplit(str(entry()["scm_url"]))
    assert address.scheme in {"git", "https"}
    assert address.path == f"/{owner()}/{REPOSITORY}.git"
    assert f"Slicer{ENTRY.stem}" == REPOSITORY
    assert setting("EXTENSION_HOMEPAGE") == f"https://{address.netloc}/{owner()}/{REPOSITORY}"


def test_rule_11_name_of_the_project() -> None:
    assert re.findall(r"project\s*\(\s*([^\s)]+)", CMAKE, re.IGNORECASE)[0] == ENTRY.stem
    assert "\r" not in CMAKE


def test_rule_11_pictures_exist_and_are_of_a_permitted_kind() -> None:
    icon, *screenshots = picture_urls()
    assert screenshots
    for url in [icon, *screenshots]:
        assert not urlsplit(url).query
        start = file_of(url).read_bytes()[:8]
        assert start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8")), f"{url} is no PNG, JPEG or GIF"


@pytest.mark.parametrize("name", ["HiResMedSynth.png", "HiResMedSynth/Resources/Icons/HiResMedSynth.png"])
def test_rule_11_icons_are_png_of_128_pixels(name: str) -> None:
    data = (ROOT / name).read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (128, 128)


def test_rule_11_owner_is_the_same_in_every_address() -> None:
    addresses = [setting("EXTENSION_HOMEPAGE"), *picture_urls(), str(entry()["scm_url"])]
    assert {urlsplit(address).path.split("/")[1] for address in addresses} == {owner()}


def test_rule_12_licence_in_the_root_is_permissive() -> None:
    found = [name for name in LICENCE_NAMES if (ROOT / name).is_file()]
    assert len(found) == 1
    assert "Apache License" in (ROOT / found[0]).read_text(encoding="utf-8")


def test_rule_13_and_14_nothing_is_built_first_and_nothing_is_compiled() -> None:
    assert entry()["build_dependencies"] == []
    assert setting("EXTENSION_DEPENDS") == "NA"
    assert not [name for name in files_below(ROOT) if name.endswith((".h", ".cxx", ".cpp", ".c"))]


# --- the checklist of the pull request


def test_tier_1_description_is_one_or_two_sentences_and_says_research_only() -> None:
    description = setting("EXTENSION_DESCRIPTION")
    assert 1 <= len(re.split(r"(?<=[.!?])\s+", description)) <= 2
    assert "Research only" in description
    assert ";" not in description  # cmake's separator of list items


def test_tier_1_contributors_and_keywords() -> None:
    assert setting("EXTENSION_CONTRIBUTORS") == "HiResMedSynth developers"
    assert setting("EXTENSION_CONTRIBUTORS") in (MODULE / "HiResMedSynth.py").read_text(encoding="utf-8")
    assert setting("EXTENSION_KEYWORDS")


def test_tier_1_revision_is_a_branch() -> None:
    assert entry()["scm_revision"] == "main"


def test_tier_1_homepage_says_what_it_must() -> None:
    assert README.startswith(f"# {ENTRY.stem}\n")
    summary = README.split("\n\n")[1]
    assert len(summary) > 80
    assert re.search(r"[^.\n]*\b3D Slicer\b[^.\n]*[.;]", README), "no sentence on the module"
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures
    assert all((ROOT / name).is_file() for name in pictures)
    assert "Apache-2.0" in README
    assert "(LICENSE" in README
    assert "doi.org/" in README


def test_tier_1_no_programs_in_the_repository() -> None:
    for name in files_below(ROOT):
        path = ROOT / name
        assert path.suffix not in PROGRAMS, name
        with path.open("rb") as file:
            assert not file.read(4).startswith((b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")), name


def test_tier_3_tutorial_with_its_data_and_their_source() -> None:
    tutorial = re.search(r"^## Tutorial.*?(?=^## )", README, re.MULTILINE | re.DOTALL)
    assert tutorial
    assert re.search(r"^1\. ", tutorial[0], re.MULTILINE)
    assert "Testing/data" in tutorial[0]
    assert "Testing/data/README.md" in README
    assert (ROOT / "Testing" / "data" / "README.md").is_file()


def test_tier_5_module_library_and_backend_have_tests() -> None:
    for room in ("extension", "service", "slicer", "export", "lesion", "placement"):
        assert list((ROOT / "Testing" / room).rglob("test_*.py")), f"Testing/{room} has no test"
    assert "WITH_GENERIC_TESTS" in (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "WITH_SUBDIR" in (LIBRARY / "CMakeLists.txt").read_text(encoding="utf-8")


def test_the_checklist_names_only_tests_that_exist_and_no_rule_is_left_out() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "Testing").rglob("test_*.py"))
    for name in set(re.findall(r"`(test_\w+)`", CHECKLIST)):
        assert f"def {name}(" in sources or (ROOT / "Testing" / "extension" / f"{name}.py").is_file(), name
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in CHECKLIST.splitlines() if line.startswith("| ")]
    rules = {int(row[0]) for row in rows if row[0].isdigit()}
    assert rules == set(range(1, 17))
    states = {row[2] for row in rows if len(row) == 4 and row[2] not in {"state", "---"}}
    assert states <= {"done", "open", "not checkable"}, states
