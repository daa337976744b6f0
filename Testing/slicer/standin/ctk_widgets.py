"""The `ctk` widgets that the module uses, with CTK's property and signal names (commontk/CTK, Libs/Widgets)."""

from __future__ import annotations

from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QSizePolicy, QToolButton, QVBoxLayout, QWidget


class ctkCollapsibleButton(QWidget):
    """A header that shows and hides what its layout holds (ctkCollapsibleButton.h)."""

    contentsCollapsed = Signal(bool)

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._header = QToolButton(self)
        self._header.setCheckable(True)
        self._header.setChecked(True)
        self._header.setAutoRaise(False)
        self._header.setToolButtonStyle(Qt.ToolButtonTextBesideIcon)
        self._header.setArrowType(Qt.DownArrow)
        self._header.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Fixed)
        self._header.setText(text)
        self._header.toggled.connect(self._toggle)
        self._content = QWidget(self)
        outer = QVBoxLayout()
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(self._header)
        outer.addWidget(self._content)
        super().setLayout(outer)

    def setLayout(self, layout: object) -> None:
        self._content.setLayout(layout)

    def layout(self) -> object:
        return self._content.layout()

    def _toggle(self, shown: bool) -> None:
        self._content.setVisible(shown)
        self._header.setArrowType(Qt.DownArrow if shown else Qt.RightArrow)
        self.contentsCollapsed.emit(not shown)

    def _collapsed(self) -> bool:
        return not self._header.checked

    def _set_collapsed(self, collapsed: bool) -> None:
        self._header.setChecked(not collapsed)

    collapsed = Property(bool, _collapsed, _set_collapsed)
    text = Property(str, lambda self: self._header.text, lambda self, text: self._header.setText(text))

    def setCollapsed(self, collapsed: bool) -> None:
        self._set_collapsed(collapsed)

    def setText(self, text: str) -> None:
        self._header.setText(text)


class ctkPathLineEdit(QWidget):
    """A path with a button to browse for it (ctkPathLineEdit.h)."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    Dirs, Files, Writable = 0x001, 0x002, 0x020

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._edit, self._browse, self._filters = QLineEdit(self), QToolButton(self), self.Files
        self._browse.setText("...")
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._edit)
        row.addWidget(self._browse)
        self.setLayout(row)
        self._valid = False
        self._edit.textChanged.connect(self._changed)
        self._browse.clicked.connect(self._ask)

    def _changed(self, text: str) -> None:
        """As updateHasValidInput(): an empty path is no valid one, and no change of the path is told."""
        if bool(text) != self._valid:
            self._valid = bool(text)
            self.validInputChanged.emit(self._valid)
        if self._valid:
            self.currentPathChanged.emit(text)

    def _ask(self) -> None:
        chosen = (
            QFileDialog.getExistingDirectory(self)
            if self._filters & self.Dirs
            else QFileDialog.getOpenFileName(self)[0]
        )
        if chosen:
            self._edit.setText(chosen)

    def _set_filters(self, filters: int) -> None:
        self._filters = int(filters)

    currentPath = Property(str, lambda self: self._edit.text, lambda self, path: self._edit.setText(path))
    filters = Property(int, lambda self: self._filters, _set_filters)

    def setCurrentPath(self, path: str) -> None:
        self._edit.setText(path)


NAMES = {"ctkCollapsibleButton": ctkCollapsibleButton, "ctkPathLineEdit": ctkPathLineEdit}
