"""Section Compose: apply or cancel, undo and redo, before and after, variants."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from HiResMedSynthPanel import form, wishes
from HiResMedSynthPanel.variants import Variants


def fusions():
    """(text, value) of the ways to join a lesion to the image."""
    return (
        (_("with the scan's sharpness and noise"), "better"),
        (_("by its matte alone"), "alpha"),
        (_("as in the paper (Eq. 17)"), "paper"),
    )


class ComposeSection:
    """From wishes to an image, and to many."""

    def __init__(self, studio):
        self._studio = studio
        self.widget, layout = form.section(_("Compose"))
        self.live = form.check(_("preview follows changes"), "livePreview", _("Composes again after every change."))
        layout.addRow(self.live)
        self.fusion = form.choice(
            fusions(), _("How a lesion is joined to a CT; on films, where shadows add, the first two are the same.")
        )
        self.fusion.connect("currentIndexChanged(int)", self._fusion_chosen)
        layout.addRow(_("Joined:"), self.fusion)
        self.distance = form.number(
            0, 500, suffix=" mm", parameter="minDistance", tip=_("Free tissue kept between two lesions.")
        )
        self.seed = form.whole("caseSeed", 0, 2147483647, _("Seed of the case: the same seed gives the same lesions."))
        layout.addRow(_("Distance:"), self.distance)
        layout.addRow(_("Case seed:"), self.seed)
        self.apply = form.button(_("Apply"), self._apply)
        self.undo = form.button(_("Undo"), studio.undo)
        self.redo = form.button(_("Redo"), studio.redo)
        layout.addRow(form.row(self.apply, self.undo, self.redo, stretch=0))
        self.after = form.check(_("show the lesions (after)"), "showComposed", _("Unticked: the image before."))
        layout.addRow(self.after)
        self.count = form.whole("variants", 1, 1000, _("How many variants."))
        self.make = form.button(_("Make variants"), self._make_variants)
        layout.addRow(form.row(self.count, self.make, stretch=1))
        self.variants = Variants(studio)
        studio.changed.connect(self.refresh)

    def refresh(self):
        """Shows the state of the studio."""
        studio = self._studio
        if studio.parameters is None:
            return
        form.offer(self.fusion, fusions(), studio.parameters.fusion)
        busy = studio.session.ticket is not None or self.variants.is_running
        missing = [] if studio.is_ready else [_("an image")]
        missing += [] if wishes.placed(studio.parameters.points) else [_("a lesion")]
        self.apply.setText(_("Cancel") if busy else _("Apply"))
        form.enable(self.apply, _("Composes the lesions into the image."), [] if busy else missing)
        for button, title, nothing in (
            (self.undo, studio.history.undo_title, _("Nothing to undo.")),
            (self.redo, studio.history.redo_title, _("Nothing to redo.")),
        ):
            button.setEnabled(bool(title))
            button.setToolTip(title or nothing)
        self.after.setEnabled(studio.parameters.composed is not None)
        missing = [] if studio.composition is not None and studio.composition.case is not None else [_("a composition")]
        missing += [_("an up-to-date composition: press Apply")] if studio.stale else []
        missing += [] if studio.parameters.exportFolder else [_("a folder under Export")]
        tip = _("Exports this case several times: same places, new seeds; locked lesions stay as they are.")
        form.enable(self.make, tip, missing + ([_("an end of the current work")] if busy else []))

    def _fusion_chosen(self, index):
        self._studio.parameters.fusion = self.fusion.itemData(index)

    def _apply(self):
        if self._studio.session.ticket is not None or self.variants.is_running:
            self.variants.stop()
            self._studio.session.cancel()
        else:
            self._studio.compose()

    def _make_variants(self):
        p = self._studio.parameters
        self.variants.start(p.variants, Path(p.exportFolder))
        qt.QTimer.singleShot(0, self.refresh)
