"""Studio: what is being composed, and the way from a click to a lesion. Sections show it and call it."""

import dataclasses
import json
import logging
import time

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _

from HiResMedSynthPanel import composed, dicom_tags, overlays, wishes
from HiResMedSynthPanel.composed import Composition
from HiResMedSynthPanel.history import History
from HiResMedSynthPanel.session import Session
from HiResMedSynthPanel.signals import Signal
from HiResMedSynthPanel.slicer_image import SlicerImage, refusal

DEFAULT_SIZE_MM = {"lung-ct": 8.0, "cxr": 20.0, "kub": 6.0}
TELL_MS = 15
SLOT_S = 0.02  # of reading tags, before the window gets its turn
ALLOWED, FORBIDDEN = (0.25, 0.85, 0.45), (0.95, 0.25, 0.20)
RELEVANT = ("domain", "pleuraMargin", "vesselMargin")


class Studio(slicer.util.VTKObservationMixin):
    """Holds background, points, composition and history of one scene.

    Signals: `changed` (anything that is shown), `said(text, is_problem)` (a sentence for the status line).
    """

    def __init__(self, session=None):
        slicer.util.VTKObservationMixin.__init__(self)
        self.changed, self.said = Signal(), Signal()
        self.session = session or Session()
        self.session.changed.connect(self.tell)
        self.parameters = None
        self.image, self.odd, self.problem = None, [], ""
        self.domain = ""
        self.history, self.composition = History(), None
        self.refused = {}
        self.layers = overlays.Layers()
        self.cards, self.pictures = {}, {}
        self.stale = False
        self._wanted, self._composing, self._dragging, self._quiet = None, None, False, False
        self._tags, self._where_of = None, None
        self._steps = qt.QTimer()
        self._steps.setSingleShot(True)
        self._steps.setInterval(0)
        self._steps.connect("timeout()", self._collect_tags)
        self._later = qt.QTimer()  # points come from several events: look once
        self._later.setSingleShot(True)
        self._later.setInterval(0)
        self._later.connect("timeout()", self._points_changed)
        self._telling = qt.QTimer()
        self._telling.setSingleShot(True)
        self._telling.setInterval(TELL_MS)
        self._telling.connect("timeout()", self.changed.emit)
        self._title, self._opened, self._background_id, self._shown = "", "", None, None

    # -- the scene -------------------------------------------------------------------------------------------------
    def attach(self, parameters):
        """Works on a parameter node: a new scene, or one that was loaded with everything in it."""
        self.detach()
        self.parameters = parameters
        self.addObserver(parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._parameters_changed)
        self._observe_points()
        self.composition = self._loaded_composition()
        self.history.reset(wishes.snapshot(parameters.points), self.composition)
        self._background_id, self._shown = None, None
        self._parameters_changed()

    def detach(self):
        """Lets go of the scene; jobs are cancelled."""
        self.removeObservers()
        self._steps.stop()
        self._later.stop()
        self.session.cancel()
        self.parameters, self.image, self.composition = None, None, None
        self.odd, self.refused, self.problem = [], {}, ""
        self._wanted, self._composing, self._where_of, self._dragging = None, None, None, False
        self.history.reset()

    def close(self):
        """Ends everything."""
        self.detach()
        self._telling.stop()
        self.session.close()
        self.changed.clear()
        self.said.clear()

    def node_goes(self, node):
        """A node that is about to be deleted: what hung on it goes too."""
        p = self.parameters
        if node is p.composed:
            p.composed, self.composition = None, None
            self.stale = bool(wishes.placed(p.points))
        elif node is p.points:
            self.removeObserver(node, node.PointPositionDefinedEvent, self._point_placed)
            self._later.stop()
            p.points = None
            self.history.reset()
            self._make_later()
        elif node in (p.danger, p.prior):
            self._where_of = None if node is p.danger else self._where_of
        self._shown = None
        self.tell()

    def _make_later(self):
        """New points for those that were deleted, once the scene has let go of them."""

        def make():
            if self.parameters is not None and self.parameters.points is None and self.is_ready:
                self._make_points()
                self.compose(quietly=True)

        qt.QTimer.singleShot(0, make)

    def show_again(self):
        """After the module was away: our layers again."""
        if self.is_ready:
            self.show_layers()

    def forget_shown(self):
        """Others may change the layers from now on."""
        self._shown = None

    @property
    def is_ready(self):
        """Whether there is an image to work on."""
        return self.image is not None

    def _parameters_changed(self, _caller=None, _event=None):
        node = self.parameters.background
        wanted = (
            None if node is None else node.GetID(),
            self.parameters.slice if self.parameters.oneSlice else None,
            self.parameters.assumedSpacing,
        )
        if wanted != self._background_id:
            self._background_id = wanted
            self._take_background(node)
        where = tuple(getattr(self.parameters, name) for name in RELEVANT)
        if self.is_ready and where != self._where_of:
            self._where_of = where
            self.update_where()
        self.restyle()
        self.tell()

    # -- background ------------------------------------------------------------------------------------------------
    def _take_background(self, node):
        loaded = self.composition is not None and self.parameters.composed is not None and self.image is None
        self.problem = refusal(node) or ""
        self.image, self.odd, self._tags, self._where_of = None, [], None, None
        if not loaded:
            self._forget_composition()
        if self.problem:
            self._forget_overlays()
            return
        self.parameters.slice = min(self.parameters.slice, node.GetImageData().GetDimensions()[2] - 1)
        self._tags = dicom_tags.collect(node)
        self._steps.start()

    def _collect_tags(self):
        end = time.monotonic() + SLOT_S
        for found in self._tags:
            if found is not None:
                self._have_background(found)
                return
            if time.monotonic() > end:
                break
        self._steps.start()

    def _have_background(self, tags):
        node = self.parameters.background
        if node is None or node.GetImageData() is None:
            return
        self.image = SlicerImage(
            node,
            slice_index=self.parameters.slice if self.parameters.oneSlice else None,
            tags=tags,
            assumed_spacing=self.parameters.assumedSpacing,
        )
        if self.parameters.points is None:
            self._make_points()
        self.session.run(
            "inspect", title=_("Looking at the image"), image=self.image, done=self._inspected, failed=self.failed
        )
        self._parameters_changed()
        self.show_layers()
        if self.composition is None and wishes.placed(self.parameters.points):
            self.compose()

    def _inspected(self, result):
        self.odd = list(result[1]["facts"]["oddities"])
        self.tell()

    def _forget_composition(self):
        self.composition, self.refused = None, {}
        if self.parameters.composed is not None:
            slicer.mrmlScene.RemoveNode(self.parameters.composed)
        for name in ("caseText", "drawnLesions"):
            if getattr(self.parameters, name) is not None:
                slicer.mrmlScene.RemoveNode(getattr(self.parameters, name))
        self.history.reset(wishes.snapshot(self.parameters.points))

    def _forget_overlays(self):
        for name in ("danger", "prior"):
            if getattr(self.parameters, name) is not None:
                slicer.mrmlScene.RemoveNode(getattr(self.parameters, name))

    # -- where -----------------------------------------------------------------------------------------------------
    def where(self):
        """Parameters of danger, prior and candidates."""
        return {
            "domain": self.parameters.domain or None,
            "margins": {"pleura_mm": self.parameters.pleuraMargin, "vessel_mm": self.parameters.vesselMargin},
        }

    def update_where(self):
        """Computes danger mask and prior anew, once for an image and its margins."""
        image = self.image

        def have_danger(result):
            if image is not self.image:
                return
            arrays, document = result
            self.domain = document["domain"]
            self.parameters.danger = overlays.show_danger(
                self.parameters.danger, image, arrays["labels"], document["names"]
            )
            self.restyle()

        def have_prior(result):
            if image is not self.image:
                return
            self.parameters.prior = overlays.show_prior(self.parameters.prior, image, result[0]["heat"])
            self.restyle()
            self.show_layers()

        title = _("Looking where lesions may go")
        where = self.where()
        self.session.run("danger", title=title, image=image, parameters=where, done=have_danger, failed=self.failed)
        wanted = {**where, "percent": True}
        self.session.run("prior", title=title, image=image, parameters=wanted, done=have_prior, failed=self.failed)

    def restyle(self):
        """Opacity, threshold and visibility as the panel says."""
        p = self.parameters
        overlays.style_danger(p.danger, visible=p.showDanger, opacity=p.dangerOpacity / 100)
        overlays.style_prior(p.prior, threshold=p.priorThreshold)
        if self.is_ready:
            self.show_layers()

    def show_layers(self):
        """Before or after, and the prior over it."""
        p = self.parameters
        after = p.composed is not None and p.showComposed
        shown = p.composed if after else p.background
        over = p.prior if p.showPrior else None
        now = (shown.GetID(), over.GetID() if over is not None else None, p.priorOpacity)
        if now != self._shown:
            self._shown = now
            self.layers.show(shown, over, p.priorOpacity / 100)

    # -- points ----------------------------------------------------------------------------------------------------
    def _make_points(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _("Lesions"))
        node.SetControlPointLabelFormat("%d")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSelectedColor(*ALLOWED)  # a selected point is a permitted one, an unselected one is red
        display.SetColor(*FORBIDDEN)
        display.SetActiveColor(1.0, 0.9, 0.3)
        display.SetGlyphType(display.Cross2D)  # a disc would hide what it marks
        display.SetGlyphScale(2.5)
        display.SetTextScale(3.0)
        self.parameters.points = node
        self._observe_points()

    def _observe_points(self):
        node = self.parameters.points
        if node is None or self.hasObserver(node, node.PointPositionDefinedEvent, self._point_placed):
            return
        self.addObserver(node, node.PointPositionDefinedEvent, self._point_placed)
        self.addObserver(node, node.PointStartInteractionEvent, self._drag_started)
        self.addObserver(node, node.PointModifiedEvent, self._point_moved)
        self.addObserver(node, node.PointEndInteractionEvent, self._drag_ended)
        self.addObserver(node, node.PointRemovedEvent, self._point_removed)

    def _point_placed(self, _caller, _event):
        self._changed_points(_("place a lesion"))

    def _point_removed(self, _caller, _event):
        self._changed_points(_("delete a lesion"))

    def _drag_started(self, _caller, _event):
        self._dragging = True

    def _drag_ended(self, _caller, _event):
        self._dragging = False
        self._changed_points(_("move a lesion"))

    def _point_moved(self, _caller, _event):
        if self._quiet or not self._dragging:
            return
        if self.parameters.livePreview:
            self.compose(quietly=True)

    def _changed_points(self, title):
        if self._quiet or self.parameters is None:
            return
        self._title = title
        self._later.start()

    def _points_changed(self):
        if self.parameters is None or self.parameters.points is None:
            return
        node = self.parameters.points
        self._quiet = True
        try:
            for index in range(node.GetNumberOfControlPoints()):
                placed = node.GetNthControlPointPositionStatus(index) == node.PositionDefined
                if placed and wishes.read(node, index) is None:
                    wishes.write(node, index, wishes.new(node, DEFAULT_SIZE_MM.get(self.domain, 10.0)))
        finally:
            self._quiet = False
        self.history.add(self._title, wishes.snapshot(node))
        self._after_change()

    def _after_change(self):
        self.stale = True
        self.say("")
        if self.parameters.livePreview and self.is_ready:
            self.compose(quietly=True)
        self.tell()

    def edit(self, key, title, **fields):
        """Changes a wish."""
        node = self.parameters.points
        index = wishes.index_of(node, key)
        if index < 0:
            return
        old = wishes.read(node, index)
        new = dataclasses.replace(old, **fields)
        if new == old:
            return
        self._quiet = True
        wishes.write(node, index, new)
        self._quiet = False
        self.history.add(title, wishes.snapshot(node))
        self._after_change()

    def delete(self, key):
        """Takes a lesion away."""
        index = wishes.index_of(self.parameters.points, key)
        if index >= 0:
            self.parameters.points.RemoveNthControlPoint(index)

    def move_to_nearest(self, key):
        """Moves a forbidden lesion to the nearest permitted place."""
        place = self.refused.get(key, {}).get("nearest")
        index = wishes.index_of(self.parameters.points, key)
        if place is None or index < 0:
            return
        self._quiet = True
        self.parameters.points.SetNthControlPointPositionWorld(index, *self.image.world_of(place))
        self._quiet = False
        self._changed_points(_("move to the nearest permitted place"))

    def jump_to(self, key):
        """Shows a lesion's slice in all views."""
        index = wishes.index_of(self.parameters.points, key)
        if index >= 0:
            position = self.parameters.points.GetNthControlPointPositionWorld(index)
            slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *position)

    def suggest(self, count):
        """Adds lesions at places drawn from the prior, away from those that there are."""
        image, seed = self.image, self.parameters.caseSeed + 1000 * len(wishes.placed(self.parameters.points))
        size = DEFAULT_SIZE_MM.get(self.domain, 10.0)
        apart = 1.6 * size + self.parameters.minDistance  # a lesion's footprint is wider than its diameter
        wanted = {**self.where(), "count": 10 * count, "seed": seed, "min_distance_mm": apart, "diameter_mm": size}

        def have(result):
            if image is not self.image:
                return
            self._add_suggested(result[0]["places"], count, apart)

        self.session.run(
            "candidates",
            title=_("Suggesting places"),
            image=image,
            parameters=wanted,
            done=have,
            failed=self.failed,
        )

    def _add_suggested(self, places, count, apart):
        node = self.parameters.points
        taken = [np.array(position) for _index, _wish, position in wishes.placed(node)]
        self._quiet = True
        added = 0
        for place in places:
            world = np.asarray(self.image.world_of([float(v) for v in place]))
            if added == count:
                break
            if all(np.linalg.norm(world - other) >= apart for other in taken):
                index = node.AddControlPointWorld(*world)
                wishes.write(node, index, wishes.new(node, DEFAULT_SIZE_MM.get(self.domain, 10.0)))
                taken.append(world)
                added += 1
        self._quiet = False
        if added < count:
            self.say(_("Only {n} more place(s) were found away from the others.").format(n=added))
        self._changed_points(_("suggest {n} lesion(s)").format(n=added))

    # -- compose ---------------------------------------------------------------------------------------------------
    def settings(self):
        """(settings of the case, keys of its requests)."""
        placed = wishes.placed(self.parameters.points)
        if self.image is not None and self.image.slice_index is not None:
            placed = [item for item in placed if self.image.slice_of(item[2]) == self.image.slice_index]
        places = [self.image.place_of(position) for _index, _wish, position in placed]
        if self._dragging:  # by whole pixels: the backend then need not render the lesion anew
            places = [(place[0], float(round(place[1])), float(round(place[2]))) for place in places]
        requests = [wish.request(place) for (_index, wish, _position), place in zip(placed, places, strict=True)]
        document = {
            **self.where(),
            "requests": requests,
            "fusion": "paper" if self.parameters.paperFusion else "alpha",
            "min_distance_mm": self.parameters.minDistance,
        }
        return document, tuple(wish.key for _index, wish, _position in placed)

    def compose(self, *, quietly=False):
        """Composes the lesions as they stand; while one composition is under way, only the newest wish waits."""
        if not self.is_ready:
            return
        settings, keys = self.settings()
        if not keys:
            self._wanted = None
            self._show(Composition((), None, b"", (), {}))
            return
        self._wanted = (settings, keys, self.parameters.caseSeed, quietly)
        if self._composing is None:
            self._compose_next()

    def compose_parameters(self, client, settings, seed):
        """Parameters of a compose job; sends the user's own lesions along."""
        own = composed.unpacked(self.parameters.ownLesions)
        image = self.image
        return {
            "settings": settings,
            "seed": seed,
            "source_slice": image.slice_index,
            "leave_out_forbidden": True,
            "own_lesions": client.send_bytes(own) if own else None,
        }

    def _compose_next(self):
        settings, keys, seed, quietly = self._wanted
        self._wanted = None
        image = self.image
        whole = slicer.util.arrayFromVolume(image.node) if self.parameters.composed is None else None
        copies = []

        def parameters(client):
            if whole is not None:
                copies.append(whole.copy())  # here in the thread: it takes a while
            return self.compose_parameters(client, settings, seed)

        def have(result):
            self._composing = None
            if image is self.image:
                self._show(Composition.of_result(*result, keys), copies)
                self._go_on()

        def failed(error):
            self._composing = None
            if image is self.image and self.parameters is not None:
                self.failed(error)
                self._go_on()

        self._composing = self.session.run(
            "compose",
            title="" if quietly else _("Composing"),
            image=image,
            parameters=parameters,
            done=have,
            failed=failed,
        )

    def _go_on(self):
        if self._wanted is not None:
            self._compose_next()

    def _show(self, composition, copies=()):
        """Writes a composition into the scene; `copies`: the background's pixels, where a new volume needs them."""
        p = self.parameters
        old = self.composition.patches if self.composition is not None else ()
        if p.composed is None and composition.patches:
            pixels = copies[0] if copies else slicer.util.arrayFromVolume(p.background).copy()
            p.composed, old = composed.new_volume(p.background, pixels), ()
        if p.composed is not None:
            composed.write_patches(p.composed, p.background, self.image, old, composition.patches)
        self.composition, self.refused, self.stale = composition, composition.refused, False
        if self._opened and composition.case is not None:
            same = composition.case["background"]["pixel_sha256"] == self._opened
            self.say(
                _("The case is opened: this is the image that it was made from.")
                if same
                else _("The case is opened, but it was made from another image: places and contrasts may not fit."),
                problem=not same,
            )
            self._opened = ""
        if not self._dragging:
            self._keep(composition)
        self._mark_points()
        self.show_layers()
        self.tell()

    def _keep(self, composition):
        """The case into the scene, and into the present step of the history."""
        p = self.parameters
        if composition.case is not None:
            p.caseText = composed.text_node(p.caseText, "SYNTHETIC case.json", composed.case_text(composition.case))
            p.drawnLesions = composed.text_node(
                p.drawnLesions, "SYNTHETIC lesions.safetensors", composed.packed(composition.lesions)
            )
        if wishes.snapshot(p.points) == self.history.now.points:
            self.history.now.composition = composition

    def _mark_points(self):
        node = self.parameters.points
        self._quiet = True
        was = node.StartModify()
        for index, wish, _position in wishes.placed(node):
            permitted = wish.key not in self.refused
            if bool(node.GetNthControlPointSelected(index)) != permitted:
                node.SetNthControlPointSelected(index, permitted)
        node.EndModify(was)
        self._quiet = False

    def _loaded_composition(self):
        """The composition of a scene that was loaded, from its text nodes and volumes."""
        p = self.parameters
        if p.caseText is None or p.composed is None or p.background is None:
            return None
        try:
            packed = composed.unpacked(p.drawnLesions)
            return Composition.of_scene(json.loads(p.caseText.GetText()), packed, p.composed, p.points)
        except (ValueError, TypeError, KeyError, IndexError):
            logging.warning("HiResMedSynth: the case in this scene can't be read")
            return None

    def open_case(self, case, points, fields):
        """Takes over a case: its settings, and its lesions as points (wish, (slice, row, column)) of this image."""
        p = self.parameters
        if list(self.image.pixels.shape) != list(case["background"]["shape"]):
            told = _(
                "The case was made in an image of {n} (slices, rows, columns). Load that one, or choose its slice."
            )
            self.say(told.format(n=case["background"]["shape"]), problem=True)
            return
        for name, value in fields.items():
            setattr(p, name, value)
        self._quiet = True
        wishes.restore(p.points, [(wish, self.image.world_of(place)) for wish, place in points])
        self._quiet = False
        self.history.add(_("open a case"), wishes.snapshot(p.points))
        self._opened = case["background"]["pixel_sha256"]
        self.compose()
        self.tell()

    # -- undo ------------------------------------------------------------------------------------------------------
    def undo(self):
        """Takes back the last change of the points."""
        if self.history.undo_title:
            self._restore(self.history.undo())

    def redo(self):
        """Does again what was taken back."""
        if self.history.redo_title:
            self._restore(self.history.redo())

    def _restore(self, step):
        self._later.stop()
        self._quiet = True
        wishes.restore(self.parameters.points, step.points)
        self._quiet = False
        if step.composition is not None:
            self._wanted = None
            self._show(step.composition)
        elif self.is_ready:
            self.compose(quietly=True)
        self.tell()

    def summary(self):
        """One line on how things stand."""
        if not self.is_ready:
            return self.problem or _("Choose an image, or load a sample.")
        if self.composition is None or not (self.composition.keys or self.refused):
            return _("Press Place and click in a slice view, or press Suggest.")
        text = _("{n} lesion(s) composed").format(n=len(self.composition.keys))
        return text + (_(", {n} not allowed where it stands.").format(n=len(self.refused)) if self.refused else ".")

    # -- telling ---------------------------------------------------------------------------------------------------
    def tell(self):
        """Has what is shown refreshed, soon and once for many changes."""
        if not self._telling.isActive():
            self._telling.start()

    def say(self, text, *, problem=False):
        """A sentence for the status line."""
        self.said.emit(text, problem)

    def failed(self, error):
        """Says what went wrong."""
        self.say(f"{error.what}. {error.remedy}".strip(), problem=error.what != _("cancelled"))
