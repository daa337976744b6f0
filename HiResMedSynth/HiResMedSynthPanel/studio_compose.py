"""Composing, as a part of the studio: from wishes to patches in the volume, newest wish first, nothing out of date."""

import json
import logging

import numpy as np
import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import composed, wishes
from HiResMedSynthPanel.composed import Composition
from HiResMedSynthPanel.studio_where import RELEVANT

ROUNDED = 0.02  # voxels
SAME_SPACING = 1e-3  # a spin box rounds
SEEDS = 2**31  # that a spin box holds
NOTHING = Composition((), None, b"", (), {})


def _is_same(before, now):
    """Whether two wishes are one but for what a saved scene rounds off their places."""
    (old, *rest), (new, *others) = json.loads(before), json.loads(now)
    if len(old["requests"]) != len(new["requests"]):
        return False
    places = [[one.pop("place") for one in document["requests"]] for document in (old, new)]
    return (old, rest) == (new, others) and np.allclose(*places, rtol=0, atol=ROUNDED)


class StudioCompose:
    """Asks for compositions, shows them, and knows whether what is shown is what is wished."""

    def _start_compose(self):
        self._generation = 0

    def _forget_composing(self):
        self.composition, self.refused = None, {}
        self._made_from, self._settings_of, self._wanted, self._opened = None, None, None, ""
        self.drop_results()

    def drop_results(self):
        """What is under way was asked for something else: its result is not wanted any more."""
        self._generation += 1
        self._wanted, self._composing = None, None

    # -- what is wished --------------------------------------------------------------------------------------------
    def settings(self):
        """(settings of the case, keys of its requests)."""
        placed = wishes.placed(self.parameters.points)
        if self.image.slice_index is not None:
            placed = [item for item in placed if self.image.slice_of(item[2]) == self.image.slice_index]
        places = [self.image.place_of(position) for _index, _wish, position in placed]
        if self._dragging:
            placed = [(index, self.as_drawn(wish), at) for index, wish, at in placed]
            places = [self._by_whole_pixels(item[1].key, at) for item, at in zip(placed, places, strict=True)]
        document = {
            **self.where(),
            "requests": [wish.request(place) for (_index, wish, _at), place in zip(placed, places, strict=True)],
            "fusion": self.parameters.fusion,
            "min_distance_mm": self.parameters.minDistance,
            "watermark": self.parameters.openedWatermark,
            "modality": self.parameters.openedModality or None,
        }
        return document, tuple(wish.key for _index, wish, _position in placed)

    def _by_whole_pixels(self, key, place):
        """A place that is a whole number of pixels from where the lesion was drawn: it need not be rendered anew."""
        drawn = self.composition.drawn(key) if self.composition is not None else None
        before = drawn["request"]["place"] if drawn is not None else (0.0, 0.0, 0.0)
        offsets = [value - round(value) for value in before]
        row, column = (round(value - offset) + offset for value, offset in zip(place[1:], offsets[1:], strict=True))
        return place[0], float(row), float(column)

    @property
    def case_seed(self):
        """Seed of the case: that of a case made elsewhere, while its place holder stands in the field."""
        p = self.parameters
        opened = int(p.openedSeed) if p.openedSeed.isdecimal() else 0
        return opened if opened and p.caseSeed == opened % SEEDS else p.caseSeed

    def made_from_now(self):
        """What a composition would be made from now; None without an image."""
        return None if self.image is None else json.dumps([*self.settings(), self.case_seed])

    @property
    def stale(self):
        """Whether the composition is not (yet) that of what is wished."""
        if self.image is None:
            return False
        if self.composition is None:
            return bool(self.settings()[1])
        return self._made_from != self.made_from_now()

    def _compose_if_settings_changed(self):
        p = self.parameters
        where = tuple(getattr(p, name) for name in RELEVANT)
        now = ((self.case_seed, p.fusion, p.minDistance), where)
        before, self._settings_of = self._settings_of, now
        if before not in (None, now) and p.livePreview and self.is_ready and self.stale:
            self.compose(quietly=before[1] == where)  # a network looks at all slices anew: that is told

    # -- the way to the backend and back ---------------------------------------------------------------------------
    def compose(self, *, quietly=False):
        """Composes the lesions as they stand; while one composition is under way, only the newest wish waits."""
        if not self.is_ready:
            return
        settings, keys = self.settings()
        if not keys:
            self.drop_results()
            self.show(NOTHING, self.made_from_now())
            return
        self._wanted = (settings, keys, self.case_seed, quietly)
        if self._composing is None:
            self._compose_next()

    @staticmethod
    def compose_parameters(client, settings, seed, *, own, source_slice):
        """Parameters of a compose job; sends the user's own lesions along. Runs in the thread: no MRML here."""
        return {
            "settings": settings,
            "seed": seed,
            "source_slice": source_slice,
            "leave_out_forbidden": True,
            "own_lesions": client.send_bytes(own) if own else None,
        }

    def _compose_next(self):
        settings, keys, seed, quietly = self._wanted
        self._wanted = None
        image, own, generation = self.image, self.own_lesions(), self._generation
        made_from = json.dumps([settings, keys, seed])
        points = wishes.snapshot(self.parameters.points)
        whole = slicer.util.arrayFromVolume(image.node) if self.parameters.composed is None else None
        copies = []

        def parameters(client):
            if whole is not None:
                copies.append(whole.copy())  # here in the thread: it takes a while
            return self.compose_parameters(client, settings, seed, own=own, source_slice=image.slice_index)

        def is_wanted():
            return generation == self._generation and image is self.image

        def have(result):
            if not is_wanted():
                return
            self._composing = None
            self.show(Composition.of_result(*result, keys), made_from, points=points, copies=copies)
            self._go_on()

        def failed(error):
            if not is_wanted():
                return
            self._composing, self._opened = None, ""
            self.failed(error)
            self._go_on()

        title = "" if quietly else _("Composing")
        ticket = self.session.run("compose", title=title, image=image, parameters=parameters, done=have, failed=failed)
        self._composing = ticket if ticket in self.session.tickets else None  # a start that fails at once has ended it

    def _go_on(self):
        if self._wanted is not None and self._composing is None:
            self._compose_next()

    # -- into the scene --------------------------------------------------------------------------------------------
    def show(self, composition, made_from, *, points=None, copies=()):
        """Writes a composition into the scene.

        Args:
            composition: the new one.
            made_from: what it was made from.
            points: the points it was made from; their step of the history keeps it.
            copies: the background's pixels, where a new volume needs them.
        """
        p = self.parameters
        old = self.composition.patches if self.composition is not None else ()
        if p.composed is None and composition.patches:
            pixels = copies[0] if copies else slicer.util.arrayFromVolume(p.background).copy()
            p.composed, old = composed.new_volume(p.background, pixels), ()
        if p.composed is not None:
            composed.write_patches(p.composed, p.background, self.image, old, composition)
        self.composition, self.refused, self._made_from = composition, composition.refused, made_from
        if points is not None and points == self.history.now.points:
            self.history.now.composition, self.history.now.made_from = composition, made_from
        if not self._dragging:
            self._keep(composition)
            p.madeFrom = made_from or ""
            self._tell_whether_same_image(composition)
        self._mark_points()
        self._mend_suggested()
        self.show_layers()
        self.tell()

    def _keep(self, composition):
        """The case into the scene; without a lesion there is none."""
        p = self.parameters
        if composition.case is None:
            for name in ("caseText", "drawnLesions"):
                if getattr(p, name) is not None:
                    slicer.mrmlScene.RemoveNode(getattr(p, name))
            return
        p.caseText = composed.text_node(p.caseText, "SYNTHETIC case.json", composed.case_text(composition.case))
        p.drawnLesions = composed.text_node(
            p.drawnLesions, "SYNTHETIC lesions.safetensors", composed.packed(composition.lesions)
        )

    def _mark_points(self):
        node = self.parameters.points
        if node is None:
            return
        self._quiet = True
        was = node.StartModify()
        for index, wish, _position in wishes.placed(node):
            permitted = wish.key not in self.refused
            if bool(node.GetNthControlPointSelected(index)) != permitted:
                node.SetNthControlPointSelected(index, permitted)
        node.EndModify(was)
        self._quiet = False

    def _forget_composition(self):
        p = self.parameters
        self.composition, self.refused, self._made_from = None, {}, None
        p.madeFrom = ""
        for name in ("composed", "caseText", "drawnLesions"):
            if getattr(p, name) is not None:
                slicer.mrmlScene.RemoveNode(getattr(p, name))
        self.history.reset(wishes.snapshot(p.points))

    def _composed_is_gone(self):
        """The composed volume was deleted: it is made anew at the next composition."""
        self.composition, self._made_from = None, None
        self.drop_results()

    def _load_composition(self):
        """The composition of a scene that was loaded, from its text nodes and volumes."""
        p = self.parameters
        if p.caseText is None or p.composed is None or p.background is None:
            return
        try:
            case = json.loads(p.caseText.GetText())
            self.composition = Composition.of_scene(case, composed.unpacked(p.drawnLesions), p.composed, p.points)
            p.fusion = p.fusion or str(case["settings"]["fusion"])
        except (ValueError, TypeError, KeyError, IndexError):
            logging.warning("HiResMedSynth: the case in this scene can't be read")

    def accept_loaded(self):
        """A loaded composition is of what is wished: what is in the scene is kept as it is."""
        if self.composition is None or self._made_from is not None:
            return
        now, before = self.made_from_now(), self.parameters.madeFrom
        is_there = set(self.settings()[1]) <= set(self.composition.keys)
        if is_there and (not before or _is_same(before, now)):  # scenes of earlier versions tell the keys alone
            self._made_from = now
            self.history.now.made_from = self._made_from

    # -- cases made elsewhere --------------------------------------------------------------------------------------
    def open_case(self, case, points, fields):
        """Takes over a case: its settings, and its lesions as points (wish, (slice, row, column)) of this image."""
        p = self.parameters
        if list(self.image.pixels.shape) != list(case["background"]["shape"]):
            told = _("The case was made in an image of {n} (slices, rows, columns). Load that, or choose its slice.")
            self.say(told.format(n=case["background"]["shape"]), problem=True)
            return
        rows, columns = case["background"]["pixel_spacing_mm"]
        ours = self.facts.get("pixel_spacing_mm") or (0.0, 0.0)
        is_same = self.facts.get("pixel_sha256") == case["background"]["pixel_sha256"]
        if is_same and not np.allclose(ours, (rows, columns), rtol=SAME_SPACING, atol=0):
            told = _(
                "The case was made with pixels of {rows:g} x {columns:g} mm. Give that under Pixel spacing, then open "
                "it again."
            )
            self.say(told.format(rows=rows, columns=columns), problem=True)
            return
        was = p.StartModify()
        for name, value in fields.items():
            setattr(p, name, value)
        p.EndModify(was)
        self._quiet = True
        wishes.restore(p.points, [(wish, self.image.world_of(place)) for wish, place in points])
        self._quiet = False
        self.history.add(_("open a case"), wishes.snapshot(p.points))
        self._opened = case["background"]["pixel_sha256"]
        self.compose()

    def _tell_whether_same_image(self, composition):
        if not self._opened or composition.case is None:
            return
        same = composition.case["background"]["pixel_sha256"] == self._opened
        self._opened = ""
        self.say(
            _("The case is opened: this is the image that it was made from.")
            if same
            else _("The case is opened, but it was made from another image: places and contrasts may not fit."),
            problem=not same,
        )
