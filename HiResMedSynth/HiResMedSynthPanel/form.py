"""Small builders for the panel's sections; what is bound to a parameter carries its name for connectGui."""

import ctk
import qt
from slicer.i18n import tr as _

MARGIN = 6


def section(title, *, collapsed=False):
    """(collapsible section, its form layout)."""
    button = ctk.ctkCollapsibleButton()
    button.text = title
    form = qt.QFormLayout()
    form.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
    form.setFieldGrowthPolicy(qt.QFormLayout.AllNonFixedFieldsGrow)
    form.setRowWrapPolicy(qt.QFormLayout.DontWrapRows)
    button.setLayout(form)
    button.collapsed = collapsed
    return button, form


def row(*widgets, stretch=None):
    """The widgets side by side; the one at `stretch` takes what is left."""
    holder = qt.QWidget()
    layout = qt.QHBoxLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if index == stretch else 0)
    if stretch is None:
        layout.addStretch(1)
    holder.setLayout(layout)
    return holder


def bound(widget, parameter):
    """The widget, bound to a field of the parameter node."""
    widget.setProperty("SlicerParameterName", parameter)
    return widget


def check(text, parameter, tip=""):
    """A bound check box."""
    box = qt.QCheckBox(text)
    box.setToolTip(tip)
    return bound(box, parameter)


def whole(parameter, low, high, tip="", suffix=""):
    """A bound spin box for whole numbers."""
    box = qt.QSpinBox()
    box.setKeyboardTracking(False)  # a half-typed number is none
    box.setRange(low, high)
    box.setSuffix(suffix)
    box.setToolTip(tip)
    return bound(box, parameter)


def number(low, high, *, suffix="", decimals=1, step=1.0, tip="", parameter=None):
    """A spin box for lengths and the like; bound where a parameter is named."""
    box = qt.QDoubleSpinBox()
    box.setKeyboardTracking(False)
    box.setDecimals(decimals)
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setSuffix(suffix)
    box.setToolTip(tip)
    return box if parameter is None else bound(box, parameter)


def slider(parameter, low, high, tip=""):
    """A bound slider for percents."""
    widget = qt.QSlider(qt.Qt.Horizontal)
    widget.setRange(low, high)
    widget.setToolTip(tip)
    return bound(widget, parameter)


def line(parameter, placeholder="", tip=""):
    """A bound line of text."""
    edit = qt.QLineEdit()
    edit.setPlaceholderText(placeholder)
    edit.setToolTip(tip)
    return bound(edit, parameter)


def path(slot, *, folder=False, tip=""):
    """A line for a path; `slot()` is called whenever it changes, also when it is emptied (another signal of ctk)."""
    edit = ctk.ctkPathLineEdit()
    edit.filters = ctk.ctkPathLineEdit.Dirs if folder else ctk.ctkPathLineEdit.Files
    edit.setToolTip(tip)
    edit.connect("currentPathChanged(QString)", lambda _path: slot())
    edit.connect("validInputChanged(bool)", lambda _valid: slot())
    return edit


def button(text, slot, tip=""):
    """A push button."""
    widget = qt.QPushButton(text)
    widget.setToolTip(tip)
    widget.connect("clicked()", slot)
    return widget


def note(text=""):
    """A line or two of explanation."""
    label = qt.QLabel(text)
    label.setWordWrap(True)
    label.setTextFormat(qt.Qt.PlainText)
    return label


def choice(items, tip=""):
    """A list to choose from: (text, value) pairs."""
    box = qt.QComboBox()
    for text, value in items:
        box.addItem(text, value)
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    return box


def offer(box, items, value, *, complete=True):
    """Has a list show these (text, value) pairs and choose one.

    A value that isn't among them is shown too, as missing where the pairs are complete.
    """
    items = list(items)
    if value not in [known for _text, known in items]:
        items.append((_("{name} (not here)").format(name=value) if complete else value, value))
    was = box.blockSignals(True)
    if [(box.itemText(k), box.itemData(k)) for k in range(box.count)] != items:
        box.clear()
        for text, known in items:
            box.addItem(text, known)
    box.setCurrentIndex(box.findData(value))
    box.blockSignals(was)


def show_number(box, value):
    """Shows a number, unless someone is typing another one."""
    if not box.hasFocus():
        box.setValue(value)


def enable(widget, tip, missing):
    """Enables a widget, or disables it and lists in its tooltip everything that is missing."""
    missing = [reason for reason in missing if reason]
    widget.setEnabled(not missing)
    widget.setToolTip(tip if not missing else tip + "\n\n" + "\n".join(f"- {reason}" for reason in missing))
