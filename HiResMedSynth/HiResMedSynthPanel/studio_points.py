"""Points, as a part of the studio: each placed point is a wish; changes of them are steps that can be undone."""

import dataclasses

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import sample_data, wishes

DEFAULT_SIZE_MM = {"lung-ct": 8.0, "cxr": 20.0, "kub": 6.0}
ANY_SIZE_MM = 10.0
MR_CNR = (20.0, 20.0)  # of a new lesion in an MR: a contrast of its own is known of CT and films alone
ALLOWED, FORBIDDEN = (0.25, 0.85, 0.45), (0.95, 0.25, 0.20)
FOOTPRINT = 1.8  # a lesion's footprint over its diameter: the matte is wider, the form not round


class StudioPoints:
    """Follows the points node; edits, suggestions, undo."""

    def _start_points(self):
        self._looking = self._timer(0, self._points_changed)  # one action fires several events: look once

    def _forget_points(self):
        self._looking.stop()
        self._dragging, self._quiet, self._title = False, False, ""
        self._suggested = set()

    @property
    def default_size_mm(self):
        """Diameter of a new lesion."""
        return DEFAULT_SIZE_MM.get(self.domain, ANY_SIZE_MM)

    def _new_wish(self, node):
        contrast = sample_data.SEEN_AT_ONCE if sample_data.is_film(self.parameters.background) else None
        wish = wishes.new(node, self.default_size_mm, contrast)
        return dataclasses.replace(wish, cnr=MR_CNR) if self.domain == "mr" else wish

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

    def _points_are_gone(self):
        """The points node is about to be deleted: a new one once the scene has let go of it."""
        self._forget_points()
        self.parameters.points = None
        self.history.reset()

        def make():
            if self.parameters is not None and self.parameters.points is None and self.is_ready:
                self._make_points()
                self.compose(quietly=True)

        qt.QTimer.singleShot(0, make)

    # -- events ----------------------------------------------------------------------------------------------------
    def _point_placed(self, _caller, _event):
        self._look_soon(_("place a lesion"))

    def _point_removed(self, _caller, _event):
        self._look_soon(_("delete a lesion"))

    def _drag_started(self, _caller, _event):
        self._dragging = True

    def _drag_ended(self, _caller, _event):
        self._dragging = False
        self._look_soon(_("move a lesion"))

    def _point_moved(self, _caller, _event):
        if self._quiet:
            return
        if not self._dragging:
            self._look_soon(self._title if self._looking.isActive() else _("move a lesion"))
        elif self.parameters.livePreview:
            self.compose(quietly=True)

    def _look_soon(self, title):
        if not self._quiet and self.parameters is not None:
            self._title = title
            self._looking.start()

    def _points_changed(self):
        node = self.parameters.points if self.parameters is not None else None
        if node is None or self._dragging:
            return
        self._complete(node)
        self._keep_forms(node)
        points = wishes.snapshot(node)
        if points != self.history.now.points:
            self.history.add(self._title, points)
            self._after_change()

    def _complete(self, node):
        """New points get a wish; pasted ones, whose key or seed another has, get their own."""
        keys, seeds = set(), set()
        self._quiet = True
        for index in range(node.GetNumberOfControlPoints()):
            if node.GetNthControlPointPositionStatus(index) != node.PositionDefined:
                continue
            wish = wishes.read(node, index)
            if wish is None:
                wish = self._new_wish(node)
                wishes.write(node, index, wish)
            elif wish.key in keys or wish.seed in seeds:
                fresh = self._new_wish(node)
                wish = dataclasses.replace(wish, key=fresh.key, seed=fresh.seed)
                wishes.write(node, index, wish)
            keys.add(wish.key)
            seeds.add(wish.seed)
        self._quiet = False

    def _keep_forms(self, node):
        """What was moved keeps the form that it was drawn with, even where another would look more real."""
        before = {wish.key: position for wish, position in self.history.now.points}
        self._quiet = True
        for index, wish, position in wishes.placed(node):
            if tuple(position) != before.get(wish.key, tuple(position)):
                wishes.write(node, index, self.as_drawn(wish))
        self._quiet = False

    def as_drawn(self, wish):
        """The wish, asking for the form that it was drawn with."""
        drawn = self.composition.drawn(wish.key) if self.composition is not None else None
        return wish if drawn is None else wish.kept(drawn["request"])

    def _after_change(self):
        self.say("")
        if self.parameters.livePreview:
            self.compose(quietly=True)
        self.tell()

    # -- what the panel asks for -----------------------------------------------------------------------------------
    def edit(self, key, title, **fields):
        """Changes a wish."""
        node = self.parameters.points
        index = wishes.index_of(node, key)
        if index < 0:
            return
        old = wishes.read(node, index)
        new = dataclasses.replace(old, **fields)
        if any(getattr(new, name) != getattr(old, name) for name in wishes.OF_FORM):
            new = new.freed()
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
        self._look_soon(_("move to the nearest permitted place"))

    def jump_to(self, key):
        """Shows a lesion's slice in all views."""
        index = wishes.index_of(self.parameters.points, key)
        if index >= 0:
            position = self.parameters.points.GetNthControlPointPositionWorld(index)
            slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *position)

    def suggest(self, count):
        """Adds lesions at places drawn from the prior, in the chosen zone, away from those that there are."""
        image, size = self.image, self.default_size_mm
        apart = FOOTPRINT * size + self.parameters.minDistance
        seed = self.parameters.caseSeed + 1000 * len(wishes.placed(self.parameters.points))
        wanted = {**self.where(), "count": 10 * count, "seed": seed, "min_distance_mm": apart, "diameter_mm": size}
        if self.parameters.suggestZone:
            wanted["quotas"] = {self.parameters.suggestZone: 10 * count}

        def have(result):
            if image is self.image:
                self._add_suggested(result[0]["places"], count, apart)

        title = _("Suggesting places")
        self.session.run("candidates", title=title, image=image, parameters=wanted, done=have, failed=self.failed)

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
                wish = self._new_wish(node)
                wishes.write(node, node.AddControlPointWorld(*world), wish)
                self._suggested.add(wish.key)
                taken.append(world)
                added += 1
        self._quiet = False
        self.history.add(_("suggest {n} lesion(s)").format(n=added), wishes.snapshot(node))
        self._after_change()
        if added < count:
            self.say(_("Only {n} place(s) were found that are free and away from the others.").format(n=added))

    def _mend_suggested(self):
        """Suggested lesions that turn out to be forbidden (their form is known only now) go to the nearest place."""
        node = self.parameters.points
        forbidden = [key for key in self.refused if key in self._suggested and self.refused[key]["nearest"]]
        self._suggested.clear()
        self._quiet = True
        for key in forbidden:
            world = self.image.world_of(self.refused[key]["nearest"])
            node.SetNthControlPointPositionWorld(wishes.index_of(node, key), *world)
        self._quiet = False
        if forbidden:
            self.history.now.points = wishes.snapshot(node)  # still the same step
            self.compose(quietly=True)

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
        self._looking.stop()
        self.drop_results()
        self._quiet = True
        wishes.restore(self.parameters.points, step.points)
        self._quiet = False
        if step.composition is not None and step.made_from == self.made_from_now():
            self.show(step.composition, step.made_from)
        else:
            self.compose(quietly=True)
        self.tell()
