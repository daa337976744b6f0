"""StudyProcess: one run of `hiresmedsynth study`, as a child that ends with Slicer; its lines are told as they come."""

import qt

from HiResMedSynthPanel.backend import child_process, chosen_interpreter, delete_soon, end, text_of


class StudyProcess:
    """Runs one command at a time.

    `line(text)` is called for each line of output, `ended(code, problem)` at the end, with the last line of error.
    """

    def __init__(self, line, ended):
        self._line, self._ended = line, ended
        self._process = None

    @property
    def is_running(self):
        """Whether a command is under way."""
        return self._process is not None

    def start(self, arguments):
        """Starts `hiresmedsynth study ARGUMENTS` with the Python of the backend, on this machine."""
        process = child_process({})
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._not_started)
        self._process = process
        process.start(str(chosen_interpreter()), ["-m", "HiResMedSynthLib.cli.main", "study", *map(str, arguments)])

    def stop(self):
        """Ends the command without telling."""
        process = self._process
        if process is None:
            return
        self._let_go()
        end(process)

    def _read(self):
        while self._process is not None and self._process.canReadLine():
            self._line(text_of(self._process.readLine()).rstrip())

    def _finished(self, code):
        if self._process is None:
            return
        self._read()
        errors = [line for line in text_of(self._process.readAllStandardError()).splitlines() if line.strip()]
        self._let_go()
        self._ended(code, errors[-1].removeprefix("Error: ") if errors else "")

    def _not_started(self, error):
        if error == qt.QProcess.FailedToStart and self._process is not None:
            self._let_go()
            self._ended(-1, str(chosen_interpreter()))

    def _let_go(self):
        delete_soon(self._process)
        self._process = None
