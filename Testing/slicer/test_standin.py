"""The stand-in offers what Slicer has, and nothing else."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
import slicer

from Testing.slicer.conftest import ROOT, Workbench
from Testing.slicer.standin.names import HEADERS


def test_every_module_and_widget_names_its_source(bench: Workbench) -> None:
    from Testing.slicer.standin import ctk_widgets, qmrml_widgets

    offered = {f"ctk.{name}" for name in ctk_widgets.NAMES} | {f"slicer.{name}" for name in qmrml_widgets.NAMES}
    assert offered <= set(HEADERS)
    for name in HEADERS:
        first, _, rest = name.partition(".")
        found = importlib.import_module(first)
        for part in rest.split(".") if rest else []:
            found = getattr(found() if callable(found) and part in ("sliceWidget",) else found, part)
        assert found is not None


def test_an_unknown_name_raises(bench: Workbench) -> None:
    import ctk
    import qt

    for module, name in ((qt, "QNichts"), (ctk, "ctkNichts"), (slicer, "qMRMLNichts"), (slicer.app, "nichts")):
        with pytest.raises(AttributeError):
            getattr(module, name)
    button = qt.QPushButton("x")
    with pytest.raises(AttributeError):
        button.txet = "y"
    with pytest.raises(AttributeError):
        button.connect("clickt()", lambda: None)
    with pytest.raises(AttributeError):
        bench.studio.parameters.nothing = 1
    with pytest.raises(ValueError, match="within"):
        bench.studio.parameters.dangerOpacity = 101


def test_properties_are_attributes_as_under_pythonqt(bench: Workbench) -> None:
    import qt

    button = qt.QPushButton("x")
    assert (button.text, button.enabled) == ("x", True)
    button.text = "y"
    assert button.text == "y"
    seen = []
    button.connect("clicked()", lambda: seen.append(1))
    button.connect("clicked(bool)", lambda on: seen.append(on))
    button.click()
    assert seen == [1, False]


def test_the_panel_uses_no_attribute_that_vtk_would_swallow() -> None:
    """VTK objects take any attribute silently: nothing in the panel assigns one to a node."""
    for path in (ROOT / "HiResMedSynth").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                        assert target.value.id not in {"node", "display", "volume", "points", "scene"}, (
                            f"{Path(path).name}:{node.lineno}"
                        )


def test_the_panel_loads_nothing_heavy(bench: Workbench) -> None:
    """The module's own imports: numpy, requests and what Slicer has (this process itself uses pydicom for checks)."""
    import subprocess
    import sys

    code = (
        "import sys, tempfile\nfrom pathlib import Path\nfrom Testing.slicer import standin\n"
        "app = standin.start(Path(tempfile.mkdtemp()))\nbefore = set(sys.modules)\n"
        f"widget = app.load(Path({str(ROOT / 'HiResMedSynth' / 'HiResMedSynth.py')!r}))\napp.enter(widget)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print('NEW', *sorted(new & {'torch', 'pydantic', 'pydicom', 'SimpleITK', 'cv2', 'scipy', 'highdicom'}))\n"
        "print('SESSION', widget.studio.session.backend.state)\nwidget.cleanup()\n"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    assert "NEW\n" in told, told
    assert "SESSION stopped" in told, "selecting the module starts nothing"
