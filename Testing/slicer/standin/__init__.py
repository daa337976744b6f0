"""A small stand-in for the 3D Slicer application: own code over the real MRML, VTK and Qt (slicer-core, PySide6).

What it stands in for, and the Slicer source that each name follows, is the table in `names.py`; a name that is not
there raises. `start()` installs it; then the module file runs unchanged.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")


def start(settings_folder: Path) -> Any:
    """The running stand-in application (`slicer.app`), its names importable as in Slicer."""
    from . import qt_names

    sys.modules["qt"] = qt_names.namespace()
    import slicer

    from . import ctk_widgets, dicom, i18n, packaging, parameter_node, qmrml_widgets, sample_data, scripted_module

    sys.modules["ctk"] = qt_names.closed_module("ctk", ctk_widgets.NAMES)
    for name, value in qmrml_widgets.NAMES.items():
        setattr(slicer, name, value)
    for name, module in {
        "slicer.ScriptedLoadableModule": scripted_module,
        "slicer.parameterNodeWrapper": parameter_node,
        "slicer.i18n": i18n,
        "slicer.packaging": packaging,
        "SampleData": sample_data,
        "DICOMLib": dicom,
    }.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    from .application import Application

    return Application(settings_folder)
