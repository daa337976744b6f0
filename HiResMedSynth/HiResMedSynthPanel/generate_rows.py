"""Rows of the section Background: new images from a seed, and the present one rebuilt, by models of the backend."""

import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import composed, form
from HiResMedSynthPanel.models import MORE_BACKGROUNDS
from HiResMedSynthPanel.slicer_image import MADE, ijk_to_ras
from HiResMedSynthPanel.words import sentences

MOST_IMAGES = 16  # of one job
LARGEST_SEED = 2147483647


class GenerateRows:
    """Offers what the backend has a model for, and nothing else.

    Args:
        studio: where the images go.
        layout: form layout that gets the rows.
        domains: (text, value) of what images can show.
    """

    def __init__(self, studio, layout, domains):
        self._studio, self._words = studio, {value: text for text, value in domains}
        self.domain = form.choice([], _("What the new images show: each that the backend has a model for."))
        self.domain.connect("currentIndexChanged(int)", lambda _index: self.refresh())
        self.generate = form.button(_("Generate"), self._generate)
        self.label = qt.QLabel(_("New:"))
        layout.addRow(self.label, form.row(self.domain, self.generate, stretch=0))
        self.seed, self.count = qt.QSpinBox(), qt.QSpinBox()
        for box, prefix, low, high, tip in (
            (self.seed, _("seed "), 0, LARGEST_SEED, _("Seed of the first image; the others take the next ones.")),
            (self.count, _("count "), 1, MOST_IMAGES, _("How many images are made.")),
        ):
            box.setKeyboardTracking(False)
            box.setPrefix(prefix)
            box.setRange(low, high)
            box.setToolTip(tip)
        self.reconstruct = form.button(_("Reconstruct"), self._reconstruct)
        layout.addRow("", form.row(self.seed, self.count, self.reconstruct))
        self.why = form.note()
        layout.addRow(self.why)
        studio.changed.connect(self.refresh)

    def refresh(self):
        """Shows the state of the studio."""
        studio, models = self._studio, self._studio.models
        there = models.domains()
        can_make = bool(there) or not models.known
        chosen = self.domain.itemData(self.domain.currentIndex) if self.domain.count else None
        if there:
            form.offer(self.domain, [(self._word(one), one) for one in there], chosen if chosen in there else there[0])
        else:
            self.domain.clear()
        for widget in (self.domain, self.seed, self.count):
            widget.setEnabled(bool(there))
        self.generate.setText(_("Generate") if models.known else _("What can be made?"))
        tip = _("Makes new images from the seed.") if models.known else _("Asks the backend which models it has.")
        missing = [] if can_make else [_("a model that makes backgrounds")]
        form.enable(self.generate, f"{tip}\n{MORE_BACKGROUNDS}", missing)
        missing = [] if studio.is_ready else [_("an image")]
        if studio.is_ready and studio.image.pixels.shape[0] > 1:
            missing.append(_("one slice: tick 'only slice'"))
        if studio.is_ready and self._present_domain() not in there:
            missing.append(_("a model for this kind of image"))
        form.enable(self.reconstruct, _("Makes the present image anew from its codes in the model."), missing)
        self.why.setText("" if can_make else _("The backend has no model that makes backgrounds. ") + MORE_BACKGROUNDS)
        self.why.setVisible(not can_make)

    def _word(self, domain):
        return self._words.get(domain, domain)

    def _present_domain(self):
        studio = self._studio
        return "lung-ct" if studio.image.header.units == "HU" else studio.parameters.domain or studio.domain or "cxr"

    # -- jobs ------------------------------------------------------------------------------------------------------
    def _generate(self):
        studio = self._studio
        if not studio.models.known:
            studio.models.ask(title=_("Looking what can be made"))
            return

        def done(result):
            arrays, document = result
            made = document["images"]
            nodes = [
                show(arrays[f"{number}.pixels"], one["header"], _("SYNTHETIC image, seed {n}").format(n=one["seed"]))
                for number, one in enumerate(made, start=1)
            ]
            self._take(nodes[0], document["domain"])
            told = [_("{n} of {all} image(s) made, seed {first} to {last}.").format(
                n=len(made), all=document["asked"], first=made[0]["seed"], last=made[-1]["seed"]
            )]  # fmt: skip
            studio.say(" ".join([*told, *sentences(ticket.notes)]))

        ticket = studio.session.run(
            "generate",
            title=_("Making new images"),
            parameters={
                "domain": self.domain.itemData(self.domain.currentIndex),
                "seed": self.seed.value,
                "count": self.count.value,
            },
            done=done,
            failed=studio.failed,
            keeps=True,
        )

    def _reconstruct(self):
        studio, domain = self._studio, self._present_domain()

        def done(result):
            arrays, document = result
            self._take(show(arrays["pixels"], document["header"], _("SYNTHETIC, rebuilt")), domain)
            studio.say(" ".join([_("The image was made anew."), *sentences(ticket.notes)]))

        ticket = studio.session.run(
            "reconstruct",
            title=_("Making the image anew"),
            image=studio.image,
            parameters={"domain": domain, "seed": self.seed.value},
            done=done,
            failed=studio.failed,
        )

    def _take(self, node, domain):
        """The new image becomes the background."""
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        p = self._studio.parameters
        was = p.StartModify()
        p.oneSlice = False
        p.background = node
        p.domain = domain if domain in self._words else ""
        p.EndModify(was)


def show(pixels, header, name):
    """A volume node of an image of the backend, in the synthetic study."""
    node = slicer.util.addVolumeFromArray(pixels, ijk_to_ras(header, len(pixels)), name)
    if header["window"] is not None:
        center, width = header["window"]
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(width, center)
    node.SetAttribute(MADE, "1")
    composed.file_under_synthetic(node)
    return node
