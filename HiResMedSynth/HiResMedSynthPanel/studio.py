"""Studio: what is being composed in one scene. Sections show it and call it; its parts are where, points, compose."""

import time

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from HiResMedSynthPanel import composed, dicom_tags, wishes
from HiResMedSynthPanel.history import History
from HiResMedSynthPanel.models import Models
from HiResMedSynthPanel.session import Session
from HiResMedSynthPanel.signals import Signal
from HiResMedSynthPanel.slicer_image import SlicerImage, fingerprint, refusal
from HiResMedSynthPanel.studio_compose import StudioCompose
from HiResMedSynthPanel.studio_points import StudioPoints
from HiResMedSynthPanel.studio_where import StudioWhere
from HiResMedSynthPanel.words import in_panel_words

TELL_MS = 15
SLOT_S = 0.02  # of reading tags, before the window gets its turn
FUSION = "better"  # as the library does by itself


class Studio(StudioWhere, StudioPoints, StudioCompose, slicer.util.VTKObservationMixin):
    """Holds background, points, composition and history of one scene.

    Signals: `changed` (anything that is shown), `said(text, is_problem)` (a sentence for the status line).
    """

    def __init__(self, session=None):
        slicer.util.VTKObservationMixin.__init__(self)
        self.changed, self.said = Signal(), Signal()
        self.session = session or Session()
        self.session.changed.connect(self.tell)
        self.session.backend.changed.connect(self._backend_changed)
        self.parameters, self.is_shown = None, False
        self.cards, self.pictures = {}, {}
        self.models = Models(self)
        self.history = History()
        self._reading = self._timer(0, self._collect_tags)
        self._telling = self._timer(TELL_MS, self.changed.emit)
        self._start_where()
        self._start_points()
        self._start_compose()
        self._forget()

    @staticmethod
    def _timer(interval_ms, slot):
        timer = qt.QTimer()
        timer.setSingleShot(True)
        timer.setInterval(interval_ms)
        timer.connect("timeout()", slot)
        return timer

    def _forget(self):
        self.image, self.facts, self.doubts, self.problem, self.domain = None, {}, [], "", ""
        self._tags, self._background, self._print = None, None, None
        self._inspected, self._inspecting = None, None
        self._forget_where()
        self._forget_points()
        self._forget_composing()

    # -- the scene -------------------------------------------------------------------------------------------------
    def attach(self, parameters):
        """Works on a parameter node: a new scene, or one that was loaded with everything in it."""
        self.detach()
        self.parameters = parameters
        self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._parameters_changed)
        self._observe_points()
        self._load_composition()
        p = self.parameters
        p.fusion = p.fusion or ("paper" if p.paperFusion else FUSION)
        self.history.reset(wishes.snapshot(parameters.points), self.composition)
        self._parameters_changed()

    def detach(self):
        """Lets go of the scene; jobs are cancelled."""
        self.removeObservers()
        self._reading.stop()
        self.session.cancel()
        self.parameters = None
        self._forget()
        self.history.reset()

    def close(self):
        """Ends everything."""
        self.detach()
        self._telling.stop()
        self.session.close()
        self.changed.clear()
        self.said.clear()

    @property
    def is_ready(self):
        """Whether there is an image to work on."""
        return self.image is not None

    @property
    def is_idle(self):
        """Whether nothing is under way or about to be."""
        return not self.session.busy and not any(
            timer.isActive() for timer in (self._reading, self._telling, self._looking, self._asking)
        )

    def node_goes(self, node):
        """A node that is about to be deleted: what hung on it goes too."""
        p = self.parameters
        if node is p.composed:
            p.composed = None
            self._composed_is_gone()
        elif node is p.points:
            self._points_are_gone()
        elif node in (p.danger, p.prior):
            self._where_of = None
        self._shown = None
        self.tell()

    def _parameters_changed(self, _caller=None, _event=None):
        p = self.parameters
        node = p.background
        wanted = (None if node is None else node.GetID(), p.slice if p.oneSlice else None, self.spacing())
        if wanted != self._background:
            new_node = self._background is not None and self._background[0] not in (None, wanted[0])
            self._background = wanted
            if new_node and (any(self.spacing()) or p.openedWatermark or p.openedModality):  # of the image before
                was = p.StartModify()
                p.assumedSpacing = p.assumedColumnSpacing = p.openedWatermark = 0.0
                p.openedModality = ""
                p.EndModify(was)
                return  # which brings us here again
            self._take_background(node)
        self._ask_where()
        self._compose_if_settings_changed()
        self.restyle()
        self.tell()

    def spacing(self):
        """(rows, columns) in mm as the user gave them; 0: as the image says, or the same."""
        rows = self.parameters.assumedSpacing
        return rows, self.parameters.assumedColumnSpacing if rows else 0.0

    def _backend_changed(self):
        state = self.session.backend.state
        if state == "ready" and self.parameters is not None:
            self._inspect()
            self._ask_where()
            self.models.ask_once()
        elif state != "ready":
            self.models.forget()

    # -- background ------------------------------------------------------------------------------------------------
    def _take_background(self, node):
        """Another image, or the same changed: everything that was made of the old one goes, but the points."""
        loaded = self.composition is not None and self.image is None
        self.problem = refusal(node) or ""
        self.image, self.facts, self.doubts, self._tags, self.domain = None, {}, [], None, ""
        self._reading.stop()
        self.drop_results()
        if not loaded:
            self._forget_composition()
            self._forget_overlays()
        self._observe_background(node)
        if self.problem:
            return
        self.parameters.slice = min(self.parameters.slice, node.GetImageData().GetDimensions()[2] - 1)
        self._tags = dicom_tags.collect(node)
        self._reading.start()

    def _observe_background(self, node):
        self.removeObservers(self._background_modified)
        self._print = None
        if node is not None:
            self._print = fingerprint(node)
            for event in (vtk.vtkCommand.ModifiedEvent, node.ImageDataModifiedEvent, node.TransformModifiedEvent):
                self.addObserver(node, event, self._background_modified)

    def _background_modified(self, node, _event):
        now = fingerprint(node)
        if self.parameters is not None and now != self._print:
            self._take_background(node)
            self.tell()

    def _collect_tags(self):
        end = time.monotonic() + SLOT_S
        for found in self._tags:
            if found is not None:
                self._have_background(found)
                return
            if time.monotonic() > end:
                break
        self._reading.start()

    def _have_background(self, tags):
        p = self.parameters
        if p.background is None or p.background.GetImageData() is None:
            return
        self.image = SlicerImage(
            p.background,
            slice_index=p.slice if p.oneSlice else None,
            tags=tags,
            assumed_spacing=self.spacing(),
        )
        is_ct = self.image.header.units == "HU"
        if p.domain and is_ct != (p.domain == "lung-ct"):
            p.domain = ""  # of the image before
        self._drop_unfit_models()
        if p.points is None:
            self._make_points()

        self._inspected = self._inspecting = None
        self._inspect()
        self.accept_loaded()
        self._parameters_changed()
        self.show_layers()
        if self.stale and p.livePreview:
            self.compose(quietly=True)

    @property
    def odd(self):
        """What is odd about the image, as far as is known."""
        return self.facts.get("oddities", [])

    def _inspect(self):
        """Asks what the image is, once; again where no backend could be started to tell."""
        image = self.image
        if image is None or self._inspected is image or self._inspecting in self.session.tickets:
            return

        def inspected(result):
            if image is self.image:
                self.facts, self._inspected = result[1]["facts"], image

        self._inspecting = self.session.run(
            "inspect", title=_("Looking at the image"), image=image, done=inspected, failed=self.failed
        )

    # -- telling ---------------------------------------------------------------------------------------------------
    def summary(self):
        """One line on how things stand."""
        if not self.is_ready:
            return self.problem or _("Choose an image, or load a sample.")
        if self.composition is None or not (self.composition.keys or self.refused):
            return _("Press Place and click in a slice view, or press Suggest.")
        text = _("{n} lesion(s) composed").format(n=len(self.composition.keys))
        return text + (_(", {n} not allowed where it stands.").format(n=len(self.refused)) if self.refused else ".")

    def tell(self):
        """Has what is shown refreshed, soon and once for many changes."""
        if not self._telling.isActive():
            self._telling.start()

    def say(self, text, *, problem=False):
        """A sentence for the status line."""
        self.said.emit(text, problem)
        self.tell()

    def failed(self, error):
        """Says what went wrong."""
        text = f"{error.what}. {in_panel_words(error.remedy)}".strip()
        self.say(text, problem=error.what != _("cancelled"))

    def own_lesions(self):
        """Bytes of the user's own lesions in this scene (bank format); b"" where there are none."""
        return composed.unpacked(self.parameters.ownLesions)
