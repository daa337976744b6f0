"""Variants: a batch of the present case with new seeds, each composed and exported to a folder of its own."""

from slicer.i18n import tr as _

from HiResMedSynthPanel import wishes
from HiResMedSynthPanel.composed import Composition
from HiResMedSynthPanel.exporter import export_parameters, folder_number, numbered_folder
from HiResMedSynthPanel.words import sentences

MOST_SHOWN = 3


class Variants:
    """Makes them one after the other; a variant that can't be drawn is told and left out."""

    def __init__(self, studio):
        self._studio = studio
        self._left, self._made, self._total = [], 0, 0
        self._tried = {}  # folder -> the last number that was begun, which may have failed
        self.problems = []

    @property
    def is_running(self):
        """Whether some are still to be made."""
        return bool(self._left)

    def start(self, count, folder):
        """Makes `count` variants in folders of their own under `folder`."""
        # a second batch goes on where the first ended, seeds too
        first = max(folder_number(folder, "variant"), self._tried.get(folder, 0) + 1)
        self._left = [(number, folder) for number in range(first, first + count)]
        self._made, self._total, self.problems = 0, count, []
        self._next()

    def stop(self):
        """Leaves out what is still to be made."""
        self._left = []

    def _next(self):
        if not self._left or not self._studio.is_ready:
            self._left = []
            return
        studio, (number, folder) = self._studio, self._left[0]
        self._tried[folder] = number
        image = studio.image
        settings, keys = studio.settings()
        locked = {w.key for _i, w, _p in wishes.placed(studio.parameters.points) if w.locked}
        taken = {request["seed"] for request in settings["requests"]}
        fresh = (seed for seed in range(1_000_000 * (number % 2000), 2**31) if seed not in taken)
        for key, request in zip(keys, settings["requests"], strict=False):
            if key not in locked:
                request.update(seed=next(fresh), attempt=0)
                request.pop(wishes.KEEP, None)
        seed, own = studio.case_seed, studio.own_lesions()
        title = _("Variant {n}, {left} left").format(n=number, left=len(self._left))

        def composed(result):
            composition = Composition.of_result(*result, keys)
            if composition.case is None or composition.refused:
                failed_text(_("a lesion of this size has no room at its place"))
                return
            self._exporting = studio.session.run(
                "export",
                title=title,
                image=image,
                parameters=export_parameters(studio.parameters, composition),
                out=numbered_folder(folder, "variant", number),
                done=exported,
                failed=failed,
            )

        def exported(_out):
            self._made += 1
            self.problems += [note for note in sentences(self._exporting.notes) if note not in self.problems]
            go_on()

        def failed(error):
            if studio.session.backend.state != "ready":
                self._left = self._left[:1]  # the rest would only fail as well
            failed_text(f"{error.what}. {error.remedy}")

        def failed_text(text):
            self.problems.append(_("Variant {n}: {text}").format(n=number, text=text))
            go_on()

        def go_on():
            if self._left:
                self._left.pop(0)
            if self._left:
                self._next()
                return
            told = _("{made} of {total} variants are in {folder}.")
            shown = self.problems[:MOST_SHOWN]
            if len(self.problems) > MOST_SHOWN:
                shown.append(_("And {n} more problems.").format(n=len(self.problems) - MOST_SHOWN))
            text = " ".join([told.format(made=self._made, total=self._total, folder=folder), *shown])
            studio.say(text, problem=bool(self.problems))
            studio.tell()

        studio.session.run(
            "compose",
            title=title,
            image=image,
            parameters=lambda client: studio.compose_parameters(
                client, settings, seed, own=own, source_slice=image.slice_index
            ),
            done=composed,
            failed=failed,
        )
