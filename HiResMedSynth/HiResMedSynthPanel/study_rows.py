"""Rows of the section Reader study: how the images are shown: window, crop, slices of a series, ring."""

import qt
from slicer.i18n import tr as _

from HiResMedSynthPanel import form

TOLD, OWN = "told", "own"  # by the images; by the two numbers beside
USUAL = {"lungs": (-600, 1500), "soft tissue": (40, 400), "bone": (400, 1800)}  # centre and width in HU
LARGEST_CROP, MOST_SLICES, MOST_HU = 4096, 100, 4096


class StudyRows:
    """What `hiresmedsynth study new` is told of the images beside where they lie."""

    def __init__(self, layout):
        choices = [
            (_("as the images tell"), TOLD),
            (_("lungs"), "lungs"),
            (_("soft tissue"), "soft tissue"),
            (_("bone"), "bone"),
            (_("centre and width:"), OWN),
        ]
        self.window = form.choice(
            choices,
            _(
                "Of a CT: the grey scale that all images are shown in first; a reader can change it. Choose one where "
                "the images tell different ones. Films are always shown over their own range."
            ),
        )
        self.window.connect("currentIndexChanged(int)", self._window_chosen)
        self.center = form.number(
            -MOST_HU, MOST_HU, suffix=" HU", decimals=0, step=50.0, tip=_("Centre of the window.")
        )
        self.width = form.number(1, 2 * MOST_HU, suffix=" HU", decimals=0, step=50.0, tip=_("Width of the window."))
        layout.addRow(_("Window:"), form.row(self.window, self.center, self.width, stretch=0))
        self.crop = form.number(
            0,
            LARGEST_CROP,
            suffix=" px",
            decimals=0,
            step=16.0,
            tip=_(
                "Shows a square of this side of each image: around the lesion where all images have one marked, else "
                "the middle. Needed where images differ in size. 0: whole images."
            ),
        )
        self.crop.setSpecialValueText(_("whole image"))
        layout.addRow(_("Crop:"), form.row(self.crop))
        self.slices = form.number(
            1,
            MOST_SLICES,
            decimals=0,
            tip=_("Of one series take part at most. More than one where there are few patients: a note then says so."),
        )
        layout.addRow(_("Slices:"), form.row(self.slices))
        self.ring = qt.QCheckBox(_("show where to look"))
        self.ring.setChecked(True)
        self.ring.setToolTip(_("A ring of one size in all images, where all have a lesion marked and none is cropped."))
        layout.addRow(_("Ring:"), self.ring)
        self._window_chosen(0)

    def arguments(self):
        """Options of the command; none for what is left as it is by default."""
        told = ["--slices", int(self.slices.value)]
        if self._window() != TOLD:
            told.append(f"--window={self.center.value:g},{self.width.value:g}")  # "-600" alone looks like an option
        if self.crop.value:
            told += ["--crop", int(self.crop.value)]
        if not self.ring.checked:
            told.append("--no-ring")
        return told

    def _window(self):
        return self.window.itemData(self.window.currentIndex)

    def _window_chosen(self, _index):
        chosen = self._window()
        for box, value in zip((self.center, self.width), USUAL.get(chosen, ()), strict=False):
            box.setValue(value)
        for box in (self.center, self.width):
            box.setEnabled(chosen == OWN)
            box.setVisible(chosen != TOLD)
