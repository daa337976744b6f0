"""Session: jobs on the backend. Starts it when needed, sends what a job lacks, hands results to the main thread."""

import logging
from pathlib import Path

from slicer.i18n import tr as _

from HiResMedSynthLib.service.client import BackendError, SilentBackendError
from HiResMedSynthLib.service.protocol import ErrorInfo
from HiResMedSynthPanel.backend import Backend
from HiResMedSynthPanel.signals import Signal
from HiResMedSynthPanel.work import Ticket, Work


class Session:
    """Runs jobs in the order they are asked for; `changed` tells of progress, start and end."""

    def __init__(self, backend=None):
        self.changed = Signal()
        self.backend = backend or Backend()
        self.backend.changed.connect(self._backend_changed)
        self.token = ""  # of a server of one's own; never stored
        self._work = Work(self._progressed)
        self._waiting = []
        self._asked = None
        self.tickets = []

    @property
    def busy(self):
        """Whether a job is under way or waits for the backend."""
        return bool(self.tickets)

    @property
    def ticket(self):
        """The job that is shown: the oldest one under way that isn't a mere preview."""
        return next((ticket for ticket in self.tickets if ticket.title), None)

    def run(self, kind, *, title="", image=None, parameters=None, done=None, failed=None, out=None, keeps=False):
        """Queues a job.

        Args:
            kind: as in the protocol.
            title: what the progress bar says; empty for jobs that run unseen.
            image: the SlicerImage it works on, or None.
            parameters: dict, or a callable(client) that sends what is needed and returns the dict.
            done: called with (arrays, document), or with the folder `out`.
            failed: called with an ErrorInfo.
            out: folder to make of an export.
            keeps: what is there when the job is cancelled is wanted too.
        """
        ticket = Ticket(title)
        self.tickets.append(ticket)

        def call(ticket):
            if ticket.cancelled.is_set():
                raise BackendError(ErrorInfo(what=_("cancelled"), remedy=""))
            client = self.backend.client
            if client is None:
                raise BackendError(ErrorInfo(what=_("the backend stopped"), remedy=_("Try again.")))
            name = None if image is None else image.send(client)
            wanted = parameters(client) if callable(parameters) else parameters
            job = client.submit(kind, image=name, parameters=wanted)

            def progress(status):
                if ticket.cancelled.is_set():
                    client.cancel(job)
                self._work.report(ticket, status.done, status.total, status.message)

            ticket.notes = client.wait(job, progress=progress).notes
            if out is None:
                return client.result(job)
            if ticket.cancelled.is_set():
                raise BackendError(ErrorInfo(what=_("cancelled"), remedy=""))
            client.fetch_export(job, out)
            return out

        ticket.keeps = keeps
        self._submit(ticket, call, done, failed)
        return ticket

    def think(self, function, *, title="", done=None, failed=None):
        """Queues `function()` in the thread, without the backend; it must not touch MRML, VTK or Qt."""
        ticket = Ticket(title)
        self.tickets.append(ticket)
        self._work.start(*self._item(ticket, lambda _ticket: function(), done, failed))
        self.changed.emit()

    def cancel(self):
        """Stops everything that is under way."""
        for ticket in list(self.tickets):
            ticket.cancel()
        for ticket, _call, _done, failed in self._waiting:
            self._over(ticket)
            failed(BackendError(ErrorInfo(what=_("cancelled"), remedy="")))
        self._waiting.clear()
        self.changed.emit()

    def close(self):
        """Ends backend and thread."""
        self.cancel()
        self._work.close()
        self.backend.stop()

    def _submit(self, ticket, call, done, failed):
        item = self._item(ticket, call, done, failed)
        if self.backend.state == "ready":
            self._work.start(*item)
        else:
            self._waiting.append(item)
            self.backend.start(self.token)
        self.changed.emit()

    def _item(self, ticket, call, done, failed):
        def finished(result):
            self._over(ticket)
            # a folder that was written is told of
            if ticket.cancelled.is_set() and not (ticket.keeps or isinstance(result, Path)):
                problem(None)
                return
            try:
                if done is not None:
                    done(result)
            except Exception as error:  # a bug of ours: the user must not wait for what never comes
                logging.exception("HiResMedSynth: a result could not be shown")
                problem(error)
            self.changed.emit()

        def problem(error):
            self._over(ticket)
            if failed is not None:
                failed(self._told(error, ticket))
            self.changed.emit()

        return ticket, call, finished, problem

    def _told(self, error, ticket):
        if ticket.cancelled.is_set():
            return ErrorInfo(what=_("cancelled"), remedy="")
        if isinstance(error, BackendError):
            if self.backend.is_remote and isinstance(error, SilentBackendError):
                self.backend.refuse(error.info.what)
                return ErrorInfo(what=error.info.what, remedy=_("Is the server running? The next action asks again."))
            return error.info
        return ErrorInfo(what=str(error), remedy=_("Look at the backend's log."))

    def _over(self, ticket):
        if ticket in self.tickets:
            self.tickets.remove(ticket)

    def _progressed(self, ticket, done, total, message):
        ticket.done, ticket.total, ticket.message = done, total, message
        if ticket.title:
            self.changed.emit()

    def _backend_changed(self):
        waiting, state = self._waiting, self.backend.state
        if state == "ready":
            self._waiting = []
            for item in waiting:
                self._work.start(*item)
        elif state == "starting" and self.backend.is_remote:
            self._ask_server()
        elif state in ("failed", "stopped") and waiting:
            self._waiting = []
            error = BackendError(ErrorInfo(what=self.backend.problem or _("the backend stopped"), remedy=""))
            for _ticket, _call, _done, failed in waiting:
                failed(error)
        self.changed.emit()

    def _ask_server(self):
        """Whether the server in the settings is one of ours; nothing else is sent before that."""
        client = self.backend.client
        if client is None or client is self._asked:
            return
        self._asked = client

        def done(_health):
            if client is self.backend.client:
                self.backend.accept()

        def failed(error):
            self._asked = None
            if client is self.backend.client:
                self.backend.refuse(error.info.what if isinstance(error, BackendError) else str(error))

        ticket = Ticket("")
        self._work.start(ticket, lambda _ticket: client.health(), done, failed)
