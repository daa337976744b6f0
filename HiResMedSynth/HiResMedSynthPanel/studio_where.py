"""Where, as a part of the studio: danger mask and prior, computed once for an image and its margins, and the layers."""

import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import overlays
from HiResMedSynthPanel.models import AUTO

ASK_MS = 300  # margins change in steps: ask for the last one
RELEVANT = ("domain", "pleuraMargin", "vesselMargin", "dangerModel", "priorModel", "temperature")


class StudioWhere:
    """Asks for the overlays, and shows layers."""

    def _start_where(self):
        self.layers = overlays.Layers()
        self._asking = self._timer(ASK_MS, self.update_where)

    def _forget_where(self):
        self._asking.stop()
        self._where_of, self._where_tickets, self._shown = None, [], None
        self.method = ""

    def where(self):
        """Parameters of danger, prior and candidates, and settings of a case."""
        p = self.parameters
        return {
            "domain": p.domain or None,
            "margins": {"pleura_mm": p.pleuraMargin, "vessel_mm": p.vesselMargin},
            "placement": {"danger": p.dangerModel, "prior": p.priorModel, "temperature": p.temperature},
        }

    def models_are_known(self):
        """The backend has told its models."""
        if self.is_ready:
            self._drop_unfit_models()
        self.tell()

    def _drop_unfit_models(self):
        """A placement model for CT is left out on a film, and the other way round."""
        is_ct, domain = self.image.header.units == "HU", self.domain or self.parameters.domain
        for name in ("dangerModel", "priorModel"):
            if self.models.is_for_the_other(getattr(self.parameters, name), is_ct=is_ct, domain=domain):
                setattr(self.parameters, name, AUTO)

    def _ask_where(self):
        """Has the overlays computed anew, if they are not those of this image and these margins."""
        where = (id(self.image), *(getattr(self.parameters, name) for name in RELEVANT))
        if self.is_ready and where != self._where_of:
            first = self._where_of is None
            self._where_of = where
            if first:
                self.update_where()
            else:
                self._asking.start()

    def update_where(self):
        """Asks the backend for danger mask and prior."""
        if not self.is_ready:
            return
        for ticket in self._where_tickets:
            ticket.cancel()
        image, asked = self.image, self._where_of

        def is_wanted():
            return image is self.image and asked == self._where_of

        def have_danger(result):
            if is_wanted():
                arrays, document = result
                p = self.parameters
                self.domain, self.doubts = document["domain"], document.get("warnings", ())
                p.danger = overlays.show_danger(p.danger, image, arrays["labels"], document["names"])
                self.restyle()

        def have_prior(result):
            if is_wanted():
                self.parameters.prior = overlays.show_prior(self.parameters.prior, image, result[0]["heat"])
                self.method = result[1]["method"]
                self.restyle()

        def failed(error):
            if is_wanted():
                self._where_of = None  # asked again at the next change, or when the backend is there again
                self.failed(error)

        title, where = _("Looking where lesions may go"), self.where()
        self._where_tickets = [
            self.session.run(kind, title=title, image=image, parameters=wanted, done=done, failed=failed)
            for kind, wanted, done in (
                ("danger", where, have_danger),
                ("prior", {**where, "percent": True}, have_prior),
            )
        ]
        self._inspect()  # if these were cancelled
        self.models.ask_once()

    def _forget_overlays(self):
        self._where_of = None
        for name in ("danger", "prior"):
            if getattr(self.parameters, name) is not None:
                slicer.mrmlScene.RemoveNode(getattr(self.parameters, name))

    # -- layers ----------------------------------------------------------------------------------------------------
    def restyle(self):
        """Opacity, threshold and visibility as the panel says."""
        p = self.parameters
        overlays.style_danger(p.danger, visible=p.showDanger, opacity=p.dangerOpacity / 100)
        overlays.style_prior(p.prior, threshold=p.priorThreshold)
        self.show_layers()

    def show_layers(self):
        """Before or after, and the prior over it; not while another module is shown."""
        p = self.parameters
        if not (self.is_shown and self.is_ready):
            return
        after = p.composed is not None and p.showComposed
        shown = p.composed if after else p.background
        over = p.prior if p.showPrior else None
        now = (shown.GetID(), over.GetID() if over is not None else None, p.priorOpacity)
        if now != self._shown:
            self._shown = now
            self.layers.show(shown, over, p.priorOpacity / 100)

    def enter(self):
        """The module is shown: our layers."""
        self.is_shown, self._shown = True, None
        if self.parameters is not None:
            self.show_layers()
        if self.session.backend.state == "ready":
            self.models.ask()  # some may have come since

    def leave(self):
        """Another module is shown: what others see stays, our foreground goes."""
        self.is_shown = False
        self.layers.restore_foreground()
