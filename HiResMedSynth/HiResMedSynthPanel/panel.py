"""Panel: a status line with progress and Cancel, and under it the sections from top to bottom."""

import time

import qt
from slicer.i18n import tr as _

from HiResMedSynthPanel import form
from HiResMedSynthPanel.annotate_section import AnnotateSection
from HiResMedSynthPanel.backend_section import BackendSection
from HiResMedSynthPanel.background_section import BackgroundSection
from HiResMedSynthPanel.bank_section import BankSection
from HiResMedSynthPanel.cases_section import CasesSection
from HiResMedSynthPanel.compose_section import ComposeSection
from HiResMedSynthPanel.export_section import ExportSection
from HiResMedSynthPanel.lesions_section import LesionsSection
from HiResMedSynthPanel.study_section import StudySection
from HiResMedSynthPanel.where_section import WhereSection


class Panel:
    """Holds the sections and tells what is under way."""

    def __init__(self, studio):
        self._studio = studio
        self.widget = qt.QWidget()
        layout = qt.QVBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        self.widget.setLayout(layout)
        self.background = BackgroundSection(studio)
        self.where = WhereSection(studio)
        self.lesions = LesionsSection(studio)
        self.compose = ComposeSection(studio)
        self.export = ExportSection(studio)
        self.bank = BankSection(studio)
        self.annotate = AnnotateSection(studio)
        self.cases = CasesSection(studio)
        self.study = StudySection(studio)
        self.backend = BackendSection(studio)
        self.sections = [
            self.background, self.where, self.lesions, self.compose, self.export,
            self.bank, self.annotate, self.cases, self.study, self.backend,
        ]  # fmt: skip
        self.status = form.note(_("Choose an image, or load a sample."))
        self.bar = qt.QProgressBar()
        self.bar.setTextVisible(True)
        self.cancel = form.button(_("Cancel"), self._cancel, _("Stops what is under way."))
        self.progress = form.row(self.bar, self.cancel, stretch=0)
        self.status.setMinimumHeight(2 * self.status.fontMetrics().height())  # two lines, so that nothing jumps
        self.progress.setVisible(False)
        layout.addWidget(self.status)
        layout.addWidget(self.progress)
        for section in self.sections:
            layout.addWidget(section.widget)
        layout.addStretch(1)
        self._began, self._shown_ticket, self._told, self._earlier = 0.0, None, "", ()
        studio.changed.connect(self._progress)
        studio.said.connect(self._say)

    def bound_widgets(self):
        """Name of the parameter -> the widget that shows it."""
        found = {w.property("SlicerParameterName"): w for w in self.widget.findChildren(qt.QWidget)}
        return {name: widget for name, widget in found.items() if name}

    def stop_placing(self):
        """Ends place mode: clicks in another module shall not add lesions."""
        for place in (self.lesions.place, self.annotate.place):
            place.setPlaceModeEnabled(False)

    def setMRMLScene(self, scene):
        """Gives the scene to the widgets that list its nodes."""
        for selector in (
            self.background.selector, self.lesions.place, self.bank.source,
            self.annotate.image, self.annotate.place, self.annotate.segments,
        ):  # fmt: skip
            selector.setMRMLScene(scene)

    def refresh(self):
        """Shows the studio's state."""
        self._studio.changed.emit()

    def close(self):
        """Stops what the sections do by themselves, and lets go of the scene."""
        self.backend.close()
        self.study.close()
        self.compose.variants.stop()
        self.annotate.annotations.removeObservers()
        self.stop_placing()
        self.setMRMLScene(None)
        self.widget.deleteLater()

    def _cancel(self):
        self.compose.variants.stop()
        self._studio.session.cancel()

    def _say(self, text, problem):
        self._told = ("\u26a0 " if problem else "") + text  # stays until something else is begun
        self._earlier = tuple(self._studio.session.tickets)
        self.status.setText(self._told)

    def _progress(self):
        session = self._studio.session
        ticket = session.ticket
        self.progress.setVisible(ticket is not None)
        if ticket is None:
            self._shown_ticket = None
            if session.backend.problem and not session.busy:
                self._say(session.backend.problem, True)
            else:
                self.status.setText(self._told or self._studio.summary())
            return
        if ticket is not self._shown_ticket:
            self._shown_ticket, self._began = ticket, time.monotonic()
        starting = session.backend.state == "starting"
        self.bar.setRange(0, ticket.total)
        self.bar.setValue(ticket.done)
        seconds = int(time.monotonic() - self._began)
        what = _("Starting the backend") if starting else ticket.message or ticket.title
        self.bar.setFormat(f"{what} ({seconds} s)")
        self.status.setText(ticket.title)
        if ticket not in self._earlier:
            self._told = ""
