"""Rows of the section Where: which danger mask and prior find places, and how strictly the prior is followed."""

import math

import qt
from slicer.i18n import tr as _

from HiResMedSynthPanel import form
from HiResMedSynthPanel.models import MORE_PLACEMENT

STEPS = 20  # of the slider to double the temperature
REACH = 2 * STEPS  # a quarter to four


class MethodRows:
    """Chooses among what the backend has."""

    def __init__(self, studio, layout):
        self._studio = studio
        self.danger, self.prior = form.choice([]), form.choice([])
        for box, text, slot in (
            (self.danger, _("Danger mask:"), self._danger_chosen),
            (self.prior, _("Prior:"), self._prior_chosen),
        ):
            box.connect("currentIndexChanged(int)", slot)
            layout.addRow(text, box)
        self.temperature = qt.QSlider(qt.Qt.Horizontal)
        self.temperature.setRange(-REACH, REACH)
        self.temperature.setTracking(False)  # each value is computed for: the one where the hand lets go
        self.temperature.setToolTip(
            _(
                "1: places are suggested as often as the prior says. More (to the right): they spread more evenly over "
                "what is permitted. Less: they keep to the likeliest places."
            )
        )
        self.temperature.connect("valueChanged(int)", self._temperature_chosen)
        self.temperature.connect("sliderMoved(int)", self._temperature_passed)
        self.temperature_text = qt.QLabel()
        self.temperature_text.setMinimumWidth(36)
        layout.addRow(_("Temperature:"), form.row(self.temperature, self.temperature_text, stretch=0))
        studio.changed.connect(self.refresh)

    def refresh(self):
        """Shows the state of the studio."""
        studio = self._studio
        p = studio.parameters
        if p is None:
            return
        models, domain = studio.models, studio.domain or p.domain
        is_ct = studio.image.header.units == "HU" if studio.is_ready else domain == "lung-ct"
        for box, what, value, tip in (
            (self.danger, "danger", p.dangerModel, _("What finds where lesions must not go.")),
            (self.prior, "location", p.priorModel, _("What tells where lesions are likely.")),
        ):
            form.offer(box, models.ways(what, is_ct=is_ct, domain=domain), value, complete=models.known)
            now = _("Now: {method}.").format(method=studio.method) if studio.method else ""
            box.setToolTip("\n".join(filter(None, [tip, now, MORE_PLACEMENT])))
        if not self.temperature.sliderDown:
            was = self.temperature.blockSignals(True)
            self.temperature.setValue(round(STEPS * math.log2(p.temperature)))  # the slider ends where it ends
            self.temperature.blockSignals(was)
            self.temperature_text.setText(f"{p.temperature:g}")

    def _danger_chosen(self, index):
        self._studio.parameters.dangerModel = self.danger.itemData(index)

    def _prior_chosen(self, index):
        self._studio.parameters.priorModel = self.prior.itemData(index)

    def _temperature_passed(self, position):
        self.temperature_text.setText(f"{_temperature_at(position):g}")

    def _temperature_chosen(self, position):
        self._studio.parameters.temperature = _temperature_at(position)


def _temperature_at(position):
    """0.25 to 4, as a round number."""
    return round(2 ** (position / STEPS), 2)
