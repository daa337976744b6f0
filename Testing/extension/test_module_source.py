"""What reviewers of the extensions index ask of the module's code (rule 16, tiers 1 and 3), read from its source."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from Testing.extension.tree import LIBRARY, MODULE, ROOT

GONE_IN_PYTHON_3_12 = {"imp", "asyncore", "asynchat", "smtpd", "distutils"}
PERMITTED = (set(sys.stdlib_module_names) - GONE_IN_PYTHON_3_12) | {
    *("slicer", "qt", "ctk", "vtk", "numpy", "HiResMedSynthPanel")
}
PERMITTED_OF_LIBRARY = {
    "HiResMedSynthLib",
    "HiResMedSynthLib.choices",
    "HiResMedSynthLib.errors",
    "HiResMedSynthLib.service.client",
    "HiResMedSynthLib.service.protocol",
}
HEAVY = {"torch", "torchvision", "pydantic", "pydicom", "SimpleITK", "cv2", "highdicom"}
NETWORK = {"requests", "urllib3", "http", "socket", "ftplib", "smtplib", "aiohttp", "httpx"}
POPUPS = re.compile(r"\b(\w*Display|messageBox|QMessageBox\.\w+|ctkMessageBox)$")
POPUPS_AT_MOST = 8
SOURCES = sorted(MODULE.rglob("*.py"))
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(MODULE).as_posix())


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def run_on_import(path: Path) -> Iterator[ast.AST]:
    """Every node that runs when the file is imported: not the bodies of functions, nor what only type checkers see."""
    waiting: list[ast.AST] = list(parsed(path).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(node: ast.AST) -> list[str]:
    """Dotted names of the modules that an import statement loads; relative ones are our own."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        full = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if is_module(name) else node.module for name in full]
    return []


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """(what is called, the call) of a whole file."""
    return [(ast.unparse(node.func), node) for node in ast.walk(parsed(path)) if isinstance(node, ast.Call)]


@each_source
def test_rule_16_file_scope_imports_only_what_slicer_has(path: Path) -> None:
    for node in run_on_import(path):
        for name in imported(node):
            known = name in PERMITTED_OF_LIBRARY or name.partition(".")[0] in PERMITTED
            assert known, f"{path.name}:{node.lineno} imports {name} at file scope: import it where it is used"


@each_source
def test_rule_16_nothing_heavy_is_imported_at_any_depth(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        for name in imported(node):
            first = name.partition(".")[0]
            assert first not in HEAVY | GONE_IN_PYTHON_3_12, f"{path.name} imports {name}"
            assert first != LIBRARY.name or name in PERMITTED_OF_LIBRARY, f"{path.name} imports {name}"


@each_source
def test_rule_16_no_code_runs_at_file_scope(path: Path) -> None:
    for node in run_on_import(path):
        assert not isinstance(node, ast.For | ast.While | ast.With), f"{path.name}:{node.lineno} runs on import"
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            # a checkout has only the module's folder on sys.path: it may add the library's
            assert called.startswith("sys.path."), f"{path.name}:{node.lineno} calls {called} on import"


@each_source
def test_rule_16_torch_is_never_installed_into_slicer(path: Path) -> None:
    for called, node in calls(path):
        if re.search(r"pip_install|pip_ensure|installTorch", called):
            assert "torch" not in ast.unparse(node), f"{path.name}:{node.lineno} installs torch into Slicer"


@each_source
def test_tier_1_nothing_leaves_the_computer(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        for name in imported(node):
            assert name != "urllib.request", f"{path.name} opens addresses"
            assert name.partition(".")[0] not in NETWORK, f"{path.name} imports {name}: only the client talks"


def test_tier_1_only_the_client_and_the_server_know_the_network() -> None:
    found = {
        path.relative_to(LIBRARY).as_posix()
        for path in LIBRARY.rglob("*.py")
        for node in ast.walk(parsed(path))
        for name in imported(node)
        if name == "urllib.request" or name.partition(".")[0] in NETWORK
    }
    assert found == {"service/client.py", "service/server.py"}


def test_tier_3_panel_and_logic_are_apart() -> None:
    classes = {node.name: node for node in parsed(MODULE / "HiResMedSynth.py").body if isinstance(node, ast.ClassDef)}
    assert {f"HiResMedSynth{part}" for part in ("", "Widget", "Logic", "Test")} <= set(classes)
    logic = ast.unparse(classes["HiResMedSynthLogic"])
    assert not re.search(r"\b(qt|ctk)\.|\.ui\b", logic), "the logic touches the panel"


def test_tier_3_module_describes_itself() -> None:
    described = {
        target.attr
        for node in ast.walk(parsed(MODULE / "HiResMedSynth.py"))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute) and ast.unparse(target.value).endswith("parent")
    }
    assert {"title", "categories", "contributors", "helpText", "acknowledgementText"} <= described


def test_tier_3_sample_data_are_registered() -> None:
    assert any("registerCustomSampleDataSource" in path.read_text(encoding="utf-8") for path in SOURCES)


def test_tier_3_few_popups() -> None:
    popups = [f"{path.name}:{node.lineno}" for path in SOURCES for called, node in calls(path) if POPUPS.search(called)]
    assert len(popups) <= POPUPS_AT_MOST, popups


@pytest.mark.parametrize(
    "path", [*SOURCES, *sorted(MODULE.rglob("*.ui"))], ids=lambda path: path.relative_to(MODULE).as_posix()
)
def test_tier_3_no_styling(path: Path) -> None:
    assert not re.search(r"setStyleSheet|styleSheet", path.read_text(encoding="utf-8"))


@each_source
def test_tier_3_translated_text_is_no_f_string(path: Path) -> None:
    for called, node in calls(path):
        if called in {"_", "translate"}:
            assert not any(isinstance(argument, ast.JoinedStr) for argument in node.args), f"{path.name}:{node.lineno}"
