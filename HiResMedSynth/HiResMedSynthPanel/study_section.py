"""Section Reader study: can readers tell synthetic images from real ones? Made, shown in a browser, and scored."""

import json
from pathlib import Path

import qt
from slicer.i18n import tr as _

from HiResMedSynthPanel import form
from HiResMedSynthPanel.exporter import free_folder
from HiResMedSynthPanel.study_process import StudyProcess
from HiResMedSynthPanel.study_rows import StudyRows
from HiResMedSynthPanel.words import in_panel_words

MOST_TRIALS = 2000
SCORES = "scores"  # folder in the study's


def open_page(url):
    """Opens an address in the system's browser."""
    return qt.QDesktopServices.openUrl(qt.QUrl(url))


class StudySection:
    """Two folders become a blinded study; readers answer in a browser on this machine."""

    def __init__(self, studio):
        self._studio = studio
        self._urls, self._made, self._lines = {}, None, []
        self._job = StudyProcess(self._job_line, self._job_ended)
        self._server = StudyProcess(self._served_line, self._server_ended)
        self.widget, layout = form.section(_("Reader study"), collapsed=True)
        tip = _("Images, DICOM series, labelled folders or exported cases; the same patient must not be in both.")
        self.real = form.path(self.refresh, folder=True, tip=tip)
        self.synthetic = form.path(self.refresh, folder=True, tip=tip)
        self.into = form.path(self.refresh, folder=True, tip=_("Each study makes a new folder in this one."))
        layout.addRow(_("Real images:"), self.real)
        layout.addRow(_("Synthetic images:"), self.synthetic)
        layout.addRow(_("Into:"), self.into)
        tasks = [(_("real or synthetic?"), "yes-no"), (_("which of two?"), "2afc"), (_("which of four?"), "4afc")]
        self.task = form.choice(tasks, _("What a reader is asked."))
        self.count = form.number(6, MOST_TRIALS, decimals=0, tip=_("Trials that each reader sees."))
        self.count.setValue(100)
        layout.addRow(_("Question:"), self.task)
        layout.addRow(_("Trials:"), form.row(self.count))
        self.rows = StudyRows(layout)
        self.readers = qt.QLineEdit()
        self.readers.setPlaceholderText(_("their names, with commas between"))
        self.readers.connect("textChanged(QString)", lambda _text: self.refresh())
        layout.addRow(_("Readers:"), self.readers)
        self.make = form.button(_("Make the study"), self._make)
        layout.addRow(self.make)
        self.study = form.path(self.refresh, folder=True, tip=_("A study that was made here or elsewhere."))
        layout.addRow(_("Study:"), self.study)
        self.serve = form.button(_("Show to readers"), self._serve)
        self.reader = form.choice([], _("Who sits in front of the browser."))
        self.open = form.button(_("Open in browser"), self._open)
        layout.addRow(form.row(self.serve, self.reader, self.open, stretch=1))
        self.score = form.button(_("Scores"), self._score)
        layout.addRow(self.score)
        self.told = form.note()
        layout.addRow(self.told)
        studio.changed.connect(self.refresh)

    @property
    def is_busy(self):
        """Whether a study is being made or scored."""
        return self._job.is_running

    def refresh(self):
        """Shows what can be done."""
        wait = [_("the end of what is under way")] if self._job.is_running else []
        folders = ((self.real, _("a folder of real images")), (self.synthetic, _("a folder of synthetic images")),
                   (self.into, _("a folder to write into")))  # fmt: skip
        missing = [what for field, what in folders if not field.currentPath.strip()]
        missing += [] if self.readers.text.strip() else [_("the name of a reader")]
        form.enable(self.make, _("Draws the images, makes them alike, and hides what is what."), missing + wait)
        missing = [] if self.study.currentPath.strip() else [_("a study")]
        self.serve.setText(_("Stop showing") if self._server.is_running else _("Show to readers"))
        tip = _("Serves the study to browsers on this machine; every answer is kept at once.")
        form.enable(self.serve, tip, [] if self._server.is_running else missing)
        tip = _("Opens the page for this reader; Slicer must stay open.")
        form.enable(self.open, tip, [] if self._urls else [_("a study that is shown: press Show to readers")])
        form.enable(
            self.score, _("What the answers given so far say; all figures open in the browser."), missing + wait
        )

    def close(self):
        """Ends what is under way; answers are kept."""
        self._job.stop()
        self._server.stop()

    # -- make and score --------------------------------------------------------------------------------------------
    def _make(self):
        parent = Path(self.into.currentPath.strip())
        if not parent.is_dir():
            self._say(_("There is no folder {path}. Choose one that exists.").format(path=parent))
            return
        self._made = free_folder(parent, "study")
        arguments = ["new", self.real.currentPath.strip(), self.synthetic.currentPath.strip(), "--out", self._made]
        arguments += ["--design", self.task.itemData(self.task.currentIndex), "--count", int(self.count.value)]
        self._start([*arguments, *self.rows.arguments(), "--readers", self.readers.text.strip()])
        self._say(_("Making the study: reading and comparing the images..."))

    def _score(self):
        self._made, study = None, Path(self.study.currentPath.strip())
        self._start(["score", study, "--report", study / SCORES, "--overwrite"])
        self._say(_("Scoring..."))

    def _start(self, arguments):
        self._lines = []
        self._job.start(arguments)
        self.refresh()

    def _job_line(self, text):
        self._lines.append(text)

    def _job_ended(self, code, problem):
        if code != 0:
            self._say(in_panel_words(problem) or _("It ended without a word (code {code}).").format(code=code))
        elif self._made is not None:
            self.study.setCurrentPath(str(self._made))
            notes = [line for line in self._lines if line.startswith("note")]
            self._say("\n".join([_("Made: {folder}.").format(folder=self._made), *notes]))
        else:
            self._show_scores(Path(self.study.currentPath.strip()) / SCORES)
        self.refresh()

    def _show_scores(self, folder):
        """A line a reader here, all of it in the browser."""
        try:
            readers = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["readers"]
            told = _("{reader}: {n} of {total} answered, {right:.0%} right ({low:.0%} to {high:.0%})")
            lines = [
                told.format(
                    reader=one["reader"],
                    n=one["answered"],
                    total=one["trials"],
                    right=one["accuracy"]["value"],
                    low=one["accuracy"]["low"],
                    high=one["accuracy"]["high"],
                )
                for one in readers
            ]
        except (OSError, ValueError, KeyError, TypeError):
            lines = [_("The scores in {folder} can't be read.").format(folder=folder)]
        self._say("\n".join(lines))
        open_page((folder / "scores.html").absolute().as_uri())

    # -- show ------------------------------------------------------------------------------------------------------
    def _serve(self):
        if self._server.is_running:
            self._server.stop()
            self._forget(_("The study is no longer shown. All answers are kept."))
            return
        self._server.start(["serve", self.study.currentPath.strip(), "--json", "--end-with-stdin"])
        self._say(_("Checking the images..."))
        self.refresh()

    def _served_line(self, text):
        try:
            told = json.loads(text)
            reader, url = str(told["reader"]), str(told["url"])
            progress = _("{reader}: {n} of {total} answered").format(
                reader=reader, n=int(told["answered"]), total=int(told["trials"])
            )
        except (ValueError, KeyError, TypeError):
            return
        if reader not in self._urls:
            self.reader.addItem(progress, reader)
        self.reader.setItemText(self.reader.findData(reader), progress)
        self._urls[reader] = url  # the one before works no more
        self._say(_("The study is shown. Choose a reader, and open the page."))
        self.refresh()

    def _server_ended(self, code, problem):
        told = in_panel_words(problem) or _("The study is no longer shown (code {code}).").format(code=code)
        self._forget(told)

    def _forget(self, text):
        self._urls = {}
        self.reader.clear()
        self._say(text)
        self.refresh()

    def _open(self):
        reader = self.reader.itemData(self.reader.currentIndex)
        if not open_page(self._urls[reader]):
            self._say(_("No browser could be opened. Open this address: {url}").format(url=self._urls[reader]))

    def _say(self, text):
        self.told.setText(text)
