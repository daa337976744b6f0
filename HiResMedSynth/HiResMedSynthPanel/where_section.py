"""Section Where: where lesions are likely, and where they must not go."""

import qt
from slicer.i18n import tr as _

from HiResMedSynthPanel import form, overlays
from HiResMedSynthPanel.method_rows import MethodRows


class WhereSection:
    """Shows prior and danger mask over the image, with opacity, threshold and legend."""

    def __init__(self, studio):
        self._studio = studio
        self.widget, layout = form.section(_("Where"))
        self.show_danger = form.check(_("Forbidden"), "showDanger", _("Shows where lesions must not go."))
        self.danger_opacity = form.slider("dangerOpacity", 0, 100, _("Opacity of the danger mask."))
        layout.addRow(self.show_danger, self.danger_opacity)
        self.show_prior = form.check(_("Likely"), "showPrior", _("Shows where lesions occurred before."))
        self.prior_opacity = form.slider("priorOpacity", 0, 100, _("Opacity of the heatmap."))
        layout.addRow(self.show_prior, self.prior_opacity)
        self.threshold = form.slider(
            "priorThreshold", 1, 100, _("Hides less likely places than this share of the peak.")
        )
        self.threshold_text = qt.QLabel()
        self.threshold_text.setMinimumWidth(36)
        layout.addRow(_("Heatmap from:"), form.row(self.threshold, self.threshold_text, stretch=0))
        self.pleura = form.number(
            0, 50, suffix=" mm", parameter="pleuraMargin", step=0.5, tip=_("Distance kept to the rim of the lung.")
        )
        self.vessel = form.number(
            0, 50, suffix=" mm", parameter="vesselMargin", step=0.5, tip=_("Distance kept to vessels and airways.")
        )
        layout.addRow(_("Keep off pleura:"), self.pleura)
        layout.addRow(_("Keep off vessels:"), self.vessel)
        self.method_rows = MethodRows(studio, layout)
        self.legend = qt.QLabel()
        self.legend.setWordWrap(True)
        layout.addRow(self.legend)
        studio.changed.connect(self.refresh)

    def refresh(self):
        """Shows the state of the studio."""
        p = self._studio.parameters
        if p is None:
            return
        self.threshold_text.setText(f"{p.priorThreshold} %")
        self.legend.setText(self._legend())
        for box, node in ((self.show_danger, p.danger), (self.show_prior, p.prior)):
            box.setEnabled(node is not None)

    def _legend(self):
        p, parts = self._studio.parameters, []
        if p.danger is not None and p.showDanger:
            segmentation = p.danger.GetSegmentation()
            for number in range(segmentation.GetNumberOfSegments()):
                segment = segmentation.GetNthSegment(number)
                parts.append(_swatch(segment.GetColor(), segment.GetName()))
        if p.prior is not None and p.showPrior:
            for percent, red, green, blue in overlays.HEAT[1:]:
                parts.append(_swatch((red, green, blue), _("{n} % of the peak").format(n=percent)))
        if not parts and p.danger is None:
            return _("Danger mask and heatmap appear once an image is chosen.")
        return " &nbsp; ".join(parts)


def _swatch(color, name):
    code = "".join(f"{round(255 * value):02x}" for value in color)
    return f'<span style="color:#{code}">&#9632;</span>&nbsp;{name}'
