"""Backend: the process that computes. Started as a child, watched, started again after a crash; or a given server."""

import json
import logging
import secrets
import sys
from pathlib import Path
from urllib.parse import urlsplit

import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthLib.service.client import BackendClient
from HiResMedSynthLib.service.protocol import TOKEN_VARIABLE
from HiResMedSynthPanel import installation
from HiResMedSynthPanel.signals import Signal

INTERPRETER_KEY, URL_KEY = "HiResMedSynth/interpreter", "HiResMedSynth/url"
CERTIFICATE_KEY = "HiResMedSynth/certificate"
LOG_LINES = 200
START_MS, END_MS, KILL_MS = 60_000, 1500, 500


def library_folder():
    """The folder in which HiResMedSynthLib lies."""
    import HiResMedSynthLib

    return Path(HiResMedSynthLib.__file__).resolve().parents[1]


def user_data_folder():
    """The folder of this user's settings, outside Slicer itself: an installed backend lies in it."""
    return Path(slicer.app.userSettings().fileName()).parent


def base_interpreter():
    """The Python that may make an environment: the one in the settings, else Slicer's own; never the environment's."""
    setting = slicer.util.settingsValue(INTERPRETER_KEY, "").strip()
    chosen = installation.interpreter_in(Path(setting)) if setting else Path(sys.executable)
    inside = installation.environment_folder(user_data_folder()) in chosen.parents
    return Path(sys.executable) if inside else chosen


def server_client(token):
    """A client of the server in the settings; None where none is named.

    Raises:
        ValueError: an address that must not be used, in words for the user.
    """
    url = slicer.util.settingsValue(URL_KEY, "")
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(_("A server beyond this machine must be reached by https, so that nobody reads along."))
    certificate = slicer.util.settingsValue(CERTIFICATE_KEY, "").strip()
    if certificate and not Path(certificate).is_file():
        raise ValueError(_("There is no certificate {path}.").format(path=certificate))
    return BackendClient(url, token, verify=certificate or True)


def chosen_interpreter():
    """The Python that runs the backend: the one in the settings, the installed environment, or Slicer's own."""
    setting = slicer.util.settingsValue(INTERPRETER_KEY, "")
    return installation.candidates(setting, user_data_folder(), Path(sys.executable))[0].interpreter


def child_process(variables):
    """A process whose Python finds the library, with these variables in its environment too; to be started."""
    process, environment = qt.QProcess(), qt.QProcessEnvironment()
    found = installation.child_environment(library_folder(), slicer.util.startupEnvironment())
    for name, value in {**found, **variables}.items():
        environment.insert(name, value)
    process.setProcessEnvironment(environment)
    return process


def end(process):
    """Ends it: our programs end when their standard input closes, others are killed."""
    process.closeWriteChannel()
    if not process.waitForFinished(END_MS):
        process.kill()
        process.waitForFinished(KILL_MS)


def delete_soon(process):
    """Deletes it when the event loop turns: it may be the one whose signal is being handled."""
    qt.QTimer.singleShot(0, lambda: process.deleteLater())


def text_of(byte_array):
    """What a process wrote."""
    data = byte_array.data() or b""
    return data if isinstance(data, str) else bytes(data).decode("utf-8", "replace")


class Backend:
    """States: stopped, starting, ready, failed; `changed` tells when it changes."""

    def __init__(self):
        self.changed = Signal()
        self.state, self.problem = "stopped", ""
        self.client, self.is_remote = None, False
        self.log = []
        self._process, self._token, self._ending = None, "", False
        self._patience = qt.QTimer()
        self._patience.setSingleShot(True)
        self._patience.setInterval(START_MS)
        self._patience.connect("timeout()", self._give_up)

    @property
    def is_running(self):
        """Whether it starts or answers."""
        return self.state in ("starting", "ready")

    @property
    def process_id(self):
        """Of the child; 0 where there is none."""
        return int(self._process.processId()) if self._process is not None else 0

    def start(self, token=""):
        """Starts it, or connects to the server in the settings; `ready` follows as a change of state."""
        if self.is_running:
            return
        self.is_remote = bool(slicer.util.settingsValue(URL_KEY, ""))
        if self.is_remote:
            self._connect(token)
            return
        interpreter = chosen_interpreter()
        self._token, self._ending = secrets.token_hex(32), False
        process = child_process({TOKEN_VARIABLE: self._token})
        process.connect("readyReadStandardOutput()", self._read_port)
        process.connect("readyReadStandardError()", self._read_log)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._not_started)
        self._process = process
        self._set("starting")
        self._patience.start()
        process.start(str(interpreter), ["-m", "HiResMedSynthLib.cli.main", "serve", "--end-with-stdin"])

    def _connect(self, token):
        """Takes up a server: it counts as ready once `accept` was told that it answers as one of ours."""
        try:
            self.client = server_client(token)
        except ValueError as error:
            self._set("failed", str(error))
            return
        self._set("starting")

    def accept(self):
        """The server has answered."""
        if self.is_remote and self.state == "starting":
            self._set("ready")

    def refuse(self, reason):
        """The server hasn't answered, or not as one of ours."""
        if self.is_remote and self.is_running:
            self.client = None
            told = _("The server in the settings can't be used: {why}. Check its address, certificate and token.")
            self._set("failed", told.format(why=reason))

    def stop(self, problem=""):
        """Ends it, on account of a problem if there is one; by itself it ends when Slicer's end of the pipe closes."""
        self._patience.stop()
        self._ending = True
        if self._process is not None:
            end(self._process)
            self._let_go()
        self.client = None
        self._set("failed" if problem else "stopped", problem)

    def _read_port(self):
        while self._process is not None and self.state == "starting" and self._process.canReadLine():
            line = text_of(self._process.readLine())
            try:
                port = int(json.loads(line)["port"])
            except (ValueError, KeyError, TypeError):
                self.log.append(line.strip())
                continue
            self._patience.stop()
            self.client = BackendClient(f"http://127.0.0.1:{port}", self._token)
            self._set("ready")

    def _read_log(self):
        if self._process is None:
            return
        self.log += [line for line in text_of(self._process.readAllStandardError()).splitlines() if line.strip()]
        del self.log[:-LOG_LINES]

    def _finished(self, code):
        if self._ending or self._process is None:
            return
        self._read_log()
        starting = self.state == "starting"
        self._patience.stop()
        self._let_go()
        if starting:
            self._set("failed", self._why_not_started())
        else:
            logging.warning("HiResMedSynth: the backend ended (code %s)", code)
            self._set("stopped", _("The backend stopped. It is started again with the next action; nothing is lost."))

    def _not_started(self, error):
        if error == qt.QProcess.FailedToStart and not self._ending:
            self._patience.stop()
            self._let_go()
            self._set("failed", _("Python for the backend can't be started: {path}").format(path=chosen_interpreter()))

    def _let_go(self):
        delete_soon(self._process)
        self._process, self.client = None, None

    def _give_up(self):
        self.stop(_("The backend didn't answer within a minute. Look at its log."))

    def _why_not_started(self):
        last = self.log[-1] if self.log else ""
        if "ModuleNotFoundError" in last:
            missing = last.split("'")[1] if "'" in last else "?"
            return _(
                "This Python lacks the package {name}. Choose another Python, or install the backend, under Backend."
            ).format(name=missing)
        return _("The backend ended while it started: {last}").format(last=last or _("no message"))

    def _set(self, state, problem=""):
        self.state, self.problem = state, problem
        self.changed.emit()
