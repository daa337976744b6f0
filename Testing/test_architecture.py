"""The house's import arrows and its cold-start promises, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Set
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "HiResMedSynthLib"
HEAVY = {"torch", "torchvision", "SimpleITK", "pydicom", "cv2", "highdicom", "gdcm", "vtk"}

FOUNDATION = {
    "aside", "bounding_box", "card_texts", "choices", "detection_formats", "errors", "flow", "free_memory", "layers",
    "one_at_a_time", "patient_split", "synthetic_words", "torchvision_guard", "versions",
}  # fmt: skip
IMAGE = {"image"}
PIXELS = {"write_volume", "read", "read_dicom", "inpaint", "project", "edge_profile", "measure", "annotations", "mark"}
ROOMS = {"lesion", "placement", "background", "fusion", "privacy"}  # these never import each other
LOWER = FOUNDATION | IMAGE | PIXELS | {"weights", "whole_tensors"}
FORMATS = {f"annotations_{kind}" for kind in ("coco", "dicom", "files", "masks", "patients", "segments", "yolo")}

# room -> rooms it may import besides itself (docs/design.md draws the same)
ALLOWED: dict[str, Set[str]] = {
    **dict.fromkeys(FOUNDATION, frozenset()),
    "image": FOUNDATION,
    "torchvision_guard": FOUNDATION,
    **dict.fromkeys(PIXELS, FOUNDATION | IMAGE),
    "annotated_image": FOUNDATION | IMAGE,
    "write_annotations": FOUNDATION | IMAGE | {"annotated_image", "write_volume"},
    **dict.fromkeys(FORMATS, FOUNDATION | IMAGE | FORMATS | {"annotated_image", "write_annotations", "read"}),
    "annotations": FOUNDATION | IMAGE | FORMATS | {"annotated_image", "write_annotations", "read"},
    "annotation_facts": FOUNDATION | IMAGE | {"annotated_image"},
    "annotation_picture": FOUNDATION | IMAGE | {"annotated_image"},
    "annotation_sets": {"annotation_facts"},
    "annotation_check": FOUNDATION | {"annotation_facts", "annotation_picture", "annotation_sets", "annotations"},
    "annotation_classes": FOUNDATION | {"placement"},
    "annotation_needs": FOUNDATION | {"annotation_check", "annotation_classes", "annotation_facts"},
    "annotation_report": {"annotation_check", "annotation_facts", "annotation_needs", "annotation_picture"},
    "measure": FOUNDATION | IMAGE | {"edge_profile"},
    "inspect": FOUNDATION | IMAGE,
    "weights": FOUNDATION | {"whole_tensors"},
    "whole_tensors": FOUNDATION,
    "privacy_record": FOUNDATION,
    "training_report": {"aside"},
    **dict.fromkeys(ROOMS, LOWER),
    "joining": LOWER,
    "case": LOWER | {"lesion", "placement", "fusion"},
    "case_file": FOUNDATION | {"case"},
    "ground": LOWER | {"placement", "joining"},
    "propose": LOWER | {"placement", "ground"},
    **dict.fromkeys(
        ("lesion_in_mr", "lesion_in_scan", "lesion_on_film"), LOWER | {"fusion", "joining", "case", "ground"}
    ),
    "lesion_notes": {"case", "ground", "lesion_in_mr"},
    "draw_lesion": LOWER | {"lesion", "placement", "fusion", "joining", "case", "ground"},
    "place_lesion": LOWER
    | {"fusion", "case", "ground", "draw_lesion"}
    | {"lesion_in_mr", "lesion_in_scan", "lesion_on_film"},
    "asked_place": FOUNDATION | IMAGE | {"draw_lesion"},
    "draw_case": LOWER
    | {"lesion", "placement", "fusion", "case", "ground"}
    | {"lesion_in_mr", "lesion_in_scan", "lesion_on_film", "lesion_notes", "draw_lesion", "place_lesion"}
    | {"asked_place"},
    "compose": FOUNDATION | IMAGE | {"case", "fusion", "mark"},
    "provenance": LOWER | {"case", "case_file", "compose", "export"},
    "export": LOWER | {"case", "case_file", "compose"},
    "batch": LOWER
    | {"background", "privacy", "privacy_record", "lesion", "placement", "fusion", "export", "case", "case_file"}
    | {"draw_case", "ground"}
    | {"compose", "annotations_patients"},
}
ABOVE = {"evaluation", "service", "cli"}


def room_of(path: Path) -> str:
    """First part of a module's path below the library; read_*.py belong to `read`."""
    first = path.relative_to(LIBRARY).parts[0].removesuffix(".py")
    return "read" if first.startswith("read_") else first


def imports_of(path: Path) -> set[tuple[str, int]]:
    """(dotted name, line) of every import, those inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {(f"{node.module}.{alias.name}", node.lineno) for alias in node.names}
    return found


MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path != LIBRARY / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_no_import_points_back(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED or room in ABOVE, f"{room} is no room of the house: add it to docs/design.md and here"
    for name, line in imports_of(path):
        assert not name.startswith(("Training", "Testing", "slicer", "qt", "ctk", "vtk")), (
            f"{path}:{line} imports {name}"
        )
        if not name.startswith("HiResMedSynthLib."):
            continue
        first = name.split(".")[1]
        target = "read" if first.startswith("read_") else first
        if target == room or not ((LIBRARY / first).exists() or (LIBRARY / f"{first}.py").exists()):
            continue
        if room in ABOVE:
            assert target not in {"service", "cli"} or room == target or room == "cli", f"{path}:{line} imports {name}"
        else:
            assert target in ALLOWED[room], f"{path}:{line}: {room} must not import {target}"


def heavy_modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted(set({sorted(HEAVY)!r}) & set(sys.modules)))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_library_loads_nothing_heavy() -> None:
    assert heavy_modules_after("import HiResMedSynthLib") == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], *([name, "--help"] for name in ("compose", "inspect", "danger", "prior", "dataset"))]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    statement = (
        "from HiResMedSynthLib.cli.main import cli\nimport contextlib, io\n"
        f"with contextlib.redirect_stdout(io.StringIO()): cli.main({arguments!r}, standalone_mode=False)"
    )
    assert heavy_modules_after(statement) == set()


def test_no_file_names_a_machine_or_a_registry() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    forbidden = ["/" + "work/", "/" + "root/", "pypi" + ".org", "python" + "hosted", "registry." + "npmjs"]
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".lock", ".txt", ".json", ""} and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [word for word in forbidden if word in text], f"{name} names a machine's path or a registry"
