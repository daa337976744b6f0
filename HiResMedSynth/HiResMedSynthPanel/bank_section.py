"""Section Bank: make a lesion of one's own from an ROI or a segment of the present image."""

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthLib.service.protocol import pack_arrays
from HiResMedSynthPanel import composed, form
from HiResMedSynthPanel.outlines import roi_outline, segment_outline

OWN_LICENCE = "the owner's own"  # as HiResMedSynthLib.lesion.own writes it
TYPES = ("solid", "part-solid", "ground-glass", "calcified")


class BankSection:
    """Cuts a lesion out, names it, and lists what the bank holds."""

    def __init__(self, studio):
        self._studio = studio
        self._asked_for, self._asking = None, None
        self.widget, layout = form.section(_("Bank"), collapsed=True)
        self.source = slicer.qMRMLNodeComboBox()
        self.source.nodeTypes = ["vtkMRMLMarkupsROINode", "vtkMRMLSegmentationNode"]
        self.source.addEnabled = False
        self.source.removeEnabled = False
        self.source.noneEnabled = True
        self.source.setToolTip(_("A box (ROI) around one lesion, or a segmentation whose first segment outlines it."))
        self.source.connect("currentNodeChanged(vtkMRMLNode*)", self._source_chosen)
        layout.addRow(_("Outline:"), self.source)
        self.name = qt.QLineEdit()
        self.name.setPlaceholderText(_("name of the new lesion"))
        self.name.connect("textChanged(QString)", self._source_chosen)
        self.kind = form.choice([(name, name) for name in TYPES], _("What the lesion is."))
        layout.addRow(_("Name:"), form.row(self.name, self.kind, stretch=0))
        self.make = form.button(_("Cut the lesion out"), self._make)
        layout.addRow(self.make)
        self.list = qt.QListWidget()
        self.list.setIconSize(qt.QSize(40, 40))
        self.list.setMinimumHeight(120)
        self.list.setToolTip(_("The lesions that can be placed; your own ones first."))
        layout.addRow(self.list)
        studio.changed.connect(self.refresh)
        studio.session.backend.changed.connect(self._backend_changed)
        self.widget.connect("contentsCollapsed(bool)", self._opened)

    def load(self):
        """Asks the backend for the bank's cards and pictures."""
        own, self._asked_for = self._studio.own_lesions(), self._key()

        def failed(error):
            if error.what == _("cancelled") or self._studio.session.backend.state == "stopped":
                self._asked_for = None  # so that it is asked again
            self._studio.failed(error)

        self._asking = self._studio.session.run(
            "bank",
            parameters=lambda client: {"own_lesions": client.send_bytes(own) if own else None},
            done=self._have_bank,
            failed=failed,
        )

    def _backend_changed(self):
        """What was asked of a backend that could not start is asked again once one does."""
        session = self._studio.session
        if session.backend.state == "ready" and not self._studio.cards and self._asking not in session.tickets:
            self._asked_for = None
            self._studio.tell()

    def _key(self):
        """What the list depends on: the own lesions of this scene."""
        return hash(self._studio.own_lesions())

    def refresh(self):
        """Shows the state of the studio."""
        studio = self._studio
        if studio.is_ready and self._asked_for != self._key():
            self.load()
        missing = [] if studio.is_ready else [_("an image")]
        if studio.is_ready and (studio.image.header.units != "HU" or studio.image.pixels.shape[0] < 3):
            missing.append(_("a CT volume: a film or a single slice shows no lesion in three dimensions"))
        missing += [] if self.source.currentNode() is not None else [_("an ROI or a segmentation around the lesion")]
        missing += [] if self.name.text.strip() else [_("a name")]
        form.enable(self.make, _("Takes the outlined lesion with its matte, to place it elsewhere."), missing)

    def _opened(self, _collapsed):
        self.refresh()

    def _source_chosen(self, _value):
        self.refresh()

    def _have_bank(self, result):
        arrays, document = result
        studio = self._studio
        studio.cards = {card["name"]: card for card in document["cards"]}
        studio.pictures = {name: arrays[f"{name}.picture"] for name in studio.cards}
        from HiResMedSynthPanel.lesion_editor import picture_icon

        self.list.clear()
        own = [name for name, card in studio.cards.items() if card["licence"] == OWN_LICENCE]
        for name in [*own, *(name for name in sorted(studio.cards) if name not in own)]:
            card = studio.cards[name]
            text = f"{name}: {card['type']}, {card['diameter_mm']:g} mm"
            self.list.addItem(text)
            self.list.item(self.list.count - 1).setIcon(picture_icon(studio.pictures[name]))
        studio.tell()

    def _make(self):
        studio, node, name = self._studio, self.source.currentNode(), self.name.text.strip()
        find = node.IsA("vtkMRMLMarkupsROINode")
        outline = roi_outline(node, studio.image) if find else segment_outline(node, studio.image)
        if outline is None:
            studio.say(_("The outline doesn't meet the image. Move it onto the lesion."), problem=True)
            return
        corner, inside = outline
        own = studio.own_lesions()
        kind = self.kind.currentText

        def prepare(client):
            mask = pack_arrays({"inside": inside}, {"corner": [int(value) for value in corner]})
            return {
                "name": name,
                "type": kind,
                "mask": client.send_bytes(mask),
                "find": find,
                "own_lesions": client.send_bytes(own) if own else None,
            }

        def done(result):
            arrays, document = result
            p = studio.parameters
            p.ownLesions = composed.text_node(
                p.ownLesions, "own lesions", composed.packed(np.ascontiguousarray(arrays["lesions"]).tobytes())
            )
            told = _("'{name}' ({size:g} mm) is in the bank of this scene: choose it as a lesion's type.")
            studio.say(told.format(name=name, size=document["card"]["diameter_mm"]))
            self.name.clear()

        studio.session.run(
            "cut_lesion",
            title=_("Cutting the lesion out"),
            image=studio.image,
            parameters=prepare,
            done=done,
            failed=studio.failed,
        )
