"""Models: what the backend has to find places, to make lesions and backgrounds with; asked for when it is there."""

from slicer.i18n import tr as _

MORE_PLACEMENT = _(
    "More: train one (folder Training of the project), then 'hiresmedsynth models add FILE' where the backend runs."
)
MORE_LESIONS = _(
    "More: 'hiresmedsynth lesion train' makes a model of one real lesion, 'hiresmedsynth models add FILE' takes one "
    "from elsewhere; both where the backend runs."
)
MORE_BACKGROUNDS = _("More: 'hiresmedsynth models add FILE', where the backend runs.")
AUTO, DEFORM, DISTANCES = "auto", "deform", "distances"
TASKS = {  # of placement models, by what is asked and the picture's domain: as the backend takes them
    "danger": {"lung-ct": ("danger-ct",), "cxr": ("danger-film",), "kub": ("danger-film",), "mr": ()},
    "location": {"lung-ct": ("location-ct", "yolo-ct"), "cxr": ("location-film",), "kub": (), "mr": ()},
}


class Models:
    """The models of the backend that is there now; `known` once it has told."""

    def __init__(self, studio):
        self._studio, self._asked = studio, False
        self.forget()

    def forget(self):
        """Another backend may have others."""
        self.known, self._models, self._best = False, [], {}

    def ask(self, *, title="", done=None):
        """Asks the backend, which is started for it where it isn't there.

        Args:
            title: what the progress bar says; empty: it is asked unseen.
            done: called once the answer is there.
        """
        self._asked = True

        def have(result):
            self._models, self._best, self.known, self._asked = result[1]["models"], result[1]["best"], True, False
            self._studio.models_are_known()
            if done is not None:
                done()

        def failed(error):
            self._asked = False
            if title:
                self._studio.failed(error)

        self._studio.session.run("models", title=title, done=have, failed=failed)

    def ask_once(self):
        """Asks where nothing is known yet."""
        if not (self.known or self._asked):
            self.ask()

    def _of(self, kind, **facts):
        return [
            one["name"] for one in self._models
            if one["kind"] == kind and all(one.get(name) == value for name, value in facts.items())
        ]  # fmt: skip

    # -- where -----------------------------------------------------------------------------------------------------
    def ways(self, what, *, is_ct, domain=""):
        """(text, value) of the ways to find the danger mask (`what` "danger") or the prior ("location")."""
        part, plain = {"danger": ("danger", ["rule"]), "location": ("prior", ["density"])}[what]
        words = {"rule": _("rule"), "density": _("density alone"), DISTANCES: _("density and distances")}
        if what == "location" and is_ct:
            plain.append(DISTANCES)
        best = self._best.get(part, {}).get(domain)
        auto = _("best available")
        if best is not None:
            auto += f" ({words.get(best, best)})"
        tasks = TASKS[what]["lung-ct" if is_ct else domain if domain in TASKS[what] else "cxr"]
        names = [name for task in tasks for name in self._of("placement", task=task)]
        return [(auto, AUTO), *((words[value], value) for value in plain), *((name, name) for name in names)]

    def is_for_the_other(self, name, *, is_ct, domain=""):
        """Whether a placement model is known to be for other pictures: for CT where this is a film, and so on."""
        if name == DISTANCES:
            return not is_ct
        this = "lung-ct" if is_ct else domain or "cxr"
        known = {one.get("task") for one in self._models if one["name"] == name and one["kind"] == "placement"}
        fitting = {task for tasks in TASKS.values() for task in tasks.get(this, ())}
        return bool(known - {None}) and not known & fitting

    # -- lesions ---------------------------------------------------------------------------------------------------
    def makers(self):
        """(text, value) of what makes a lesion's form; the values are those of `Wish.maker`."""
        singan, learned = self._of("lesion-singan"), self._of("lesion-flow")
        kinds = {one["name"]: one.get("type") for one in self._models}
        items = [(_("a bank lesion, deformed"), DEFORM)]
        if singan:
            items.append((_("SinGAN: one that fits"), "singan"))
        items += [
            (f"SinGAN: {name}" + (f" ({kinds[name]})" if kinds[name] else ""), f"singan {name}") for name in singan
        ]
        return items + [(_("learned: {name}").format(name=name), f"learned {name}") for name in learned]

    def lesion_type(self, name):
        """The type that a lesion model makes; None where it isn't told."""
        return next((one.get("type") for one in self._models if one["name"] == name), None)

    # -- backgrounds -----------------------------------------------------------------------------------------------
    def domains(self):
        """What new backgrounds can show, each once."""
        told = [one.get("domain") for one in self._models if one["kind"] == "background"]
        return list(dict.fromkeys(domain for domain in told if domain))
