"""Section Backend: which Python or server computes, and its installation from a folder, without a network."""

import sys
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthLib import __version__
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.service.protocol import PROTOCOL_VERSION
from HiResMedSynthPanel import form, install_job, installation
from HiResMedSynthPanel.backend import (
    CERTIFICATE_KEY,
    INTERPRETER_KEY,
    URL_KEY,
    base_interpreter,
    chosen_interpreter,
    library_folder,
    server_client,
    user_data_folder,
)
from HiResMedSynthPanel.work import Ticket, Work


def device_of(health):
    """Where a backend makes backgrounds; whether it has a GPU it looks with the first one, for that takes seconds."""
    return _("a GPU if it has one") if health["device"] == "auto" else health["device"]


class BackendSection:
    """State of the backend, settings of this machine, installation and removal."""

    def __init__(self, studio):
        self._studio = studio
        self._work, self._ticket, self._wheels = None, None, None
        self.widget, layout = form.section(_("Backend"), collapsed=True)
        self.state = form.note()
        layout.addRow(_("State:"), self.state)
        tip = _("A Python with torch. Empty: the installed one, else Slicer's own.")
        self.interpreter = form.path(self._interpreter_chosen, tip=tip + _(" A virtual environment's folder will do."))
        self.interpreter.setCurrentPath(slicer.util.settingsValue(INTERPRETER_KEY, ""))
        layout.addRow(_("Python:"), self.interpreter)
        self.url = qt.QLineEdit(slicer.util.settingsValue(URL_KEY, ""))
        self.url.setPlaceholderText(_("https://... of a GPU server; empty: this machine"))
        self.url.connect("editingFinished()", self._url_chosen)
        tip = _("Certificate file (.pem) of a server that signs for itself; empty: the usual authorities.")
        self.certificate = form.path(self._url_chosen, tip=tip)
        self.token = qt.QLineEdit()
        self.token.setEchoMode(qt.QLineEdit.Password)
        self.token.setPlaceholderText(_("its token; never stored"))
        self.token.connect("editingFinished()", self._url_chosen)
        layout.addRow(_("Server:"), self.url)
        layout.addRow(_("Token:"), self.token)
        layout.addRow(_("Certificate:"), self.certificate)
        self.certificate.setCurrentPath(slicer.util.settingsValue(CERTIFICATE_KEY, ""))
        self.start = form.button(_("Restart"), self._restart, _("Ends the backend and starts it anew."))
        self.check = form.button(_("Check"), self._check, _("Asks this Python what it has."))
        self.copy = form.button(_("Copy report"), self._copy, _("Versions and log, for a report; no patient data."))
        layout.addRow(form.row(self.start, self.check, self.copy))
        tip = _("A folder of wheels with SHA256SUMS, see docs/offline_install.md.")
        self.folder = form.path(self._folder_chosen, folder=True, tip=tip)
        layout.addRow(_("Wheels:"), self.folder)
        self.look = form.button(_("Check folder"), self._look, _("Checks hashes and sizes; installs nothing."))
        self.install = form.button(_("Install"), self._install)
        self.remove = form.button(_("Remove"), self._remove)
        layout.addRow(form.row(self.look, self.install, self.remove))
        self.told = form.note()
        layout.addRow(self.told)
        studio.changed.connect(self.refresh)

    @property
    def environment(self):
        """Folder of the installed environment."""
        return installation.environment_folder(user_data_folder())

    def refresh(self):
        """Shows the state of the backend."""
        backend = self._studio.session.backend
        states = {"stopped": _("not running"), "starting": _("starting"), "ready": _("ready"), "failed": _("failed")}
        text = states[backend.state]
        self.state.setText(text + (f": {backend.problem}" if backend.problem else ""))
        busy = self._ticket is not None
        missing = [] if self.folder.currentPath.strip() else [_("a folder of wheels")]
        missing += [_("the end of what is under way")] if busy else []
        self.check.setEnabled(not busy)
        form.enable(self.look, _("Checks hashes and sizes; installs nothing."), missing)
        self.install.setText(_("Cancel") if busy else _("Install"))
        missing = [] if busy or self._wheels else [_("a checked folder: press Check folder")]
        form.enable(self.install, _("Makes an environment of its own, outside Slicer."), missing)
        missing = [] if self.environment.exists() and not busy else [_("an installed environment")]
        form.enable(self.remove, _("Removes the installed environment again, all of it."), missing)

    def close(self):
        """Stops what is under way."""
        if self._ticket is not None:
            self._ticket.cancel()
        if self._work is not None:
            self._work.close()

    # -- settings --------------------------------------------------------------------------------------------------
    def _interpreter_chosen(self):
        now = self.interpreter.currentPath.strip()
        if now != slicer.util.settingsValue(INTERPRETER_KEY, ""):
            slicer.app.userSettings().setValue(INTERPRETER_KEY, now)
            self._studio.session.backend.stop()

    def _url_chosen(self):
        session, url, token = self._studio.session, self.url.text.strip(), self.token.text.strip()
        certificate, settings = self.certificate.currentPath.strip(), slicer.app.userSettings()
        before = (slicer.util.settingsValue(URL_KEY, ""), slicer.util.settingsValue(CERTIFICATE_KEY, ""), session.token)
        if (url, certificate, token) != before:
            settings.setValue(URL_KEY, url)
            settings.setValue(CERTIFICATE_KEY, certificate)
            session.token = token
            session.backend.stop()  # the next action uses the new one

    def _restart(self):
        session = self._studio.session
        session.backend.stop()
        session.backend.start(session.token)

    def _copy(self):
        backend = self._studio.session.backend
        version = f"Slicer {slicer.app.majorVersion}.{slicer.app.minorVersion}, Python {sys.version.split()[0]}"
        lines = [
            f"HiResMedSynth {__version__}, protocol {PROTOCOL_VERSION}; {version}",
            f"Backend: {backend.state} {backend.problem}",
            f"Its Python: {chosen_interpreter()}",
        ]
        text = "\n".join([*lines, self.told.text, *backend.log])
        qt.QApplication.clipboard().setText(text.replace(str(Path.home()), "~"))
        self._studio.say(_("The report is on the clipboard."))

    # -- in a thread -----------------------------------------------------------------------------------------------
    def _do(self, call, done):
        if self._work is None:
            self._work = Work(lambda _ticket, _done, _total, message: self.told.setText(message))
        self._ticket = Ticket("")

        def finished(result):
            self._ticket = None
            done(result)
            self.refresh()

        def failed(error):
            self._ticket = None
            text = f"{error.what}. {error.remedy}" if isinstance(error, HiResMedSynthError) else str(error)
            self.told.setText(text)
            self.refresh()

        self._work.start(self._ticket, call, finished, failed)
        self.refresh()

    def _check(self):
        try:
            client = server_client(self.token.text.strip())
        except ValueError as error:
            self.told.setText(str(error))
            return
        if client is not None:
            told = _("The server answers: computes on {device}, {n} package versions known.")
            self._do(
                lambda _ticket: client.health(),
                lambda health: self.told.setText(told.format(device=device_of(health), n=len(health["versions"]))),
            )
            return
        interpreter, base = chosen_interpreter(), slicer.util.startupEnvironment()
        self._do(
            lambda _ticket: installation.probe(interpreter, library_folder(), 30.0, base),
            lambda answer: self.told.setText(answer.sentence),
        )

    def _folder_chosen(self):
        self._wheels = None
        self.refresh()

    def _look(self):
        folder = Path(self.folder.currentPath.strip())

        def done(found):
            needed, missing = found
            self._wheels = needed if not missing else None
            if missing:
                self.told.setText(_("Missing in this folder: {names}.").format(names=", ".join(missing)))
                return
            packed = installation.size_text(sum(wheel.packed for wheel in needed))
            unpacked = installation.size_text(sum(wheel.unpacked for wheel in needed))
            told = _("{n} packages, {packed}; they take {unpacked} in {folder}. Press Install to go on.")
            text = told.format(n=len(needed), packed=packed, unpacked=unpacked, folder=self.environment)
            self.told.setText(text)

        interpreter, base = base_interpreter(), slicer.util.startupEnvironment()
        self._do(lambda _ticket: install_job.check_folder(folder, interpreter, base), done)

    def _install(self):
        if self._ticket is not None:
            self._ticket.cancel()
            return
        work = self._work
        wanted = {
            "interpreter": base_interpreter(),
            "folder": Path(self.folder.currentPath.strip()),
            "environment": self.environment,
            "wheels": self._wheels,
            "library_folder": library_folder(),
            "base": slicer.util.startupEnvironment(),
        }
        self._studio.session.backend.stop()  # it may run in the environment that is replaced

        def call(ticket):
            return install_job.install(ticket, lambda *told: work.report(ticket, *told), **wanted)

        def done(answer):
            self.interpreter.setCurrentPath("")  # else it would come before what was just installed
            self.told.setText(_("Installed. ") + answer.sentence)

        self._do(call, done)

    def _remove(self):
        environment = self.environment
        if not slicer.util.confirmOkCancelDisplay(
            _("Remove the installed backend in {folder}?").format(folder=environment)
        ):
            return
        self._studio.session.backend.stop()
        self._do(
            lambda _ticket: installation.remove(environment), lambda _nothing: self.told.setText(_("It is removed."))
        )
