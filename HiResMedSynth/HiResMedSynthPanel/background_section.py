"""Section Background: which image, which part of it, what was odd about it."""

import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import form, sample_data
from HiResMedSynthPanel.generate_rows import GenerateRows


def domains():
    """(text, value) of what an image can show."""
    return (
        (_("by the image"), ""),
        (_("CT of the lung"), "lung-ct"),
        (_("Chest film"), "cxr"),
        (_("Abdomen film (KUB)"), "kub"),
        (_("MR"), "mr"),
    )


class BackgroundSection:
    """Chooses the background."""

    def __init__(self, studio):
        self._studio = studio
        self.widget, layout = form.section(_("Background"))
        self.selector = slicer.qMRMLNodeComboBox()
        self.selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.selector.addEnabled = False
        self.selector.removeEnabled = False
        self.selector.showChildNodeTypes = False  # a label map is a scalar volume too
        self.selector.noneEnabled = True
        self.selector.setToolTip(_("The radiograph, CT or MR (slice or volume) that lesions are placed in."))
        form.bound(self.selector, "background")
        layout.addRow(_("Image:"), self.selector)
        self.sample_ct = form.button(_("Sample CT"), lambda: self._load("ct"), _("Loads a small made-up chest CT."))
        self.sample_film = form.button(_("Sample film"), lambda: self._load("film"), _("Loads a made-up chest film."))
        layout.addRow("", form.row(self.sample_ct, self.sample_film))
        self.domain = form.choice(domains(), _("What the image shows: decides where lesions may go."))
        self.domain.connect("currentIndexChanged(int)", self._domain_chosen)
        layout.addRow(_("Shows:"), self.domain)
        tip = _("Distance of rows, for a picture that doesn't tell it (PNG, JPEG, some films). 0: as the image says.")
        self.spacing = form.number(0.0, 100.0, suffix=" mm", decimals=4, step=0.01, parameter="assumedSpacing", tip=tip)
        self.spacing.setSpecialValueText(_("as the image says"))
        tip = _("Distance of columns, where it differs from that of rows.")
        self.column_spacing = form.number(
            0.0, 100.0, suffix=" mm", decimals=4, step=0.01, parameter="assumedColumnSpacing", tip=tip
        )
        self.column_spacing.setSpecialValueText(_("the same"))
        layout.addRow(_("Pixel spacing:"), form.row(self.spacing, self.column_spacing, stretch=0))
        self.one_slice = form.check(_("only slice"), "oneSlice", _("Works on one slice of the volume by itself."))
        self.slice = form.whole("slice", 0, 100000, _("Number of the slice, from 0."))
        self.here = form.button(_("Shown"), self._take_shown, _("Takes the slice that the red view shows."))
        self.slice_row = form.row(self.one_slice, self.slice, self.here)
        self.slice_label = qt.QLabel(_("Work on:"))
        layout.addRow(self.slice_label, self.slice_row)
        self.new = GenerateRows(studio, layout, domains())
        self.about = form.note()
        layout.addRow(self.about)
        studio.changed.connect(self.refresh)

    def refresh(self):
        """Shows the state of the studio."""
        studio = self._studio
        if studio.parameters is None:
            return
        node = studio.parameters.background
        self.domain.blockSignals(True)
        self.domain.setCurrentIndex(self.domain.findData(studio.parameters.domain))
        self.domain.blockSignals(False)
        slices = node.GetImageData().GetDimensions()[2] if node is not None and node.GetImageData() is not None else 1
        for widget in (self.slice_label, self.slice_row):
            widget.setVisible(slices > 1)
        self.slice.setMaximum(max(slices - 1, 0))
        self.slice.setEnabled(studio.parameters.oneSlice)
        self.column_spacing.setEnabled(studio.parameters.assumedSpacing > 0)
        self.here.setEnabled(slices > 1)
        if studio.problem:
            self.about.setText(studio.problem)
        elif studio.image is None:
            self.about.setText(_("Reading the image..."))
        else:
            depth, rows, columns = studio.image.pixels.shape
            size = _("{rows} x {columns} pixels").format(rows=rows, columns=columns)
            if depth > 1:
                size = _("{n} slices of {size}").format(n=depth, size=size)
            odd = "".join(f"\n- {text}" for text in (*studio.odd, *studio.doubts))
            self.about.setText(f"{size}, {studio.image.header.modality}" + (_("\nUnusual:") + odd if odd else ""))

    def _load(self, kind):
        studio = self._studio

        def made(result):
            node = sample_data.show(kind, result)
            slicer.util.setSliceViewerLayers(background=node, fit=True)
            studio.parameters.background = node
            if kind == "film":
                studio.parameters.domain = "cxr"  # a made-up film has no header that tells it
                studio.say(_(
                    "New lesions on this film have about five times the contrast of real ones, so that you see them at "
                    "once. Contrast: 'its own' gives a lesion its own."
                ))  # fmt: skip

        studio.session.think(
            lambda: sample_data.make(kind), title=_("Making the sample"), done=made, failed=studio.failed
        )

    def _domain_chosen(self, index):
        self._studio.parameters.domain = self.domain.itemData(index) or ""

    def _take_shown(self):
        image, layouts = self._studio.image, slicer.app.layoutManager()
        if image is None or layouts is None:
            return
        matrix = layouts.sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
        world = [matrix.GetElement(k, 3) for k in range(3)]
        self._studio.parameters.slice = min(max(image.slice_of(world), 0), image.shape[0] - 1)
        self._studio.parameters.oneSlice = True
