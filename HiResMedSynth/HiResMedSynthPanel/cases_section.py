"""Section Cases: open a case.json made elsewhere, edit it, export it again."""

import json
from pathlib import Path

from slicer.i18n import tr as _

from HiResMedSynthLib.choices import DOMAINS, FUSIONS
from HiResMedSynthPanel import form, wishes
from HiResMedSynthPanel.models import AUTO
from HiResMedSynthPanel.studio_compose import SEEDS

LARGEST_BYTES = 64 * 2**20


class CasesSection:
    """Turns the lesions of a case into points of this scene."""

    def __init__(self, studio):
        self._studio = studio
        self.widget, layout = form.section(_("Cases"), collapsed=True)
        tip = _("The case.json of an export, of this program or of the command line.")
        self.file = form.path(self.refresh, tip=tip)
        layout.addRow(_("case.json:"), self.file)
        self.open = form.button(_("Open onto the present image"), self._open)
        layout.addRow(self.open)
        self.about = form.note(
            _("A case holds its lesions, not its image: load the image first. Its pixels are compared with the case's.")
        )
        layout.addRow(self.about)
        studio.changed.connect(self.refresh)

    def refresh(self):
        """Shows the state of the studio."""
        missing = [] if self._studio.is_ready else [_("the image that the case was made from, as the background")]
        missing += [] if self.file.currentPath.strip() else [_("a case.json")]
        missing += [_("the end of the current work")] if self._studio.session.ticket is not None else []
        tip = _("Replaces the lesions of this scene by those of the case; undo brings them back.")
        form.enable(self.open, tip, missing)

    def _open(self):
        path = Path(self.file.currentPath.strip())
        if path.is_dir():
            path = path / "case.json"
        try:
            case = _read(path)
            fields = _fields(case)
            points = [self._point(number, lesion) for number, lesion in enumerate(case["lesions"], start=1)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            told = _("{file} can't be read as a case ({why}). Choose the case.json of an export.")
            self._studio.say(told.format(file=path.name, why=type(error).__name__), problem=True)
            return
        if case["background"].get("blanked"):
            told = _("{file} is of an image with text blanked out, which the panel can't do: an export would show it.")
            told += " " + _(
                "Replay it from the command line: hiresmedsynth compose IMAGE --case case.json --out FOLDER."
            )
            self._studio.say(told.format(file=path.name), problem=True)
            return
        self._studio.open_case(case, points, fields)

    def _point(self, key, lesion):
        request = dict(lesion["request"])
        place = request.pop("place")
        return wishes.of_request(key, request), tuple(float(value) for value in place)


def _read(path):
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError
    return json.loads(path.read_text(encoding="utf-8"))


def _fields(case):
    """The case's settings as fields of the parameter node; ValueError, KeyError or TypeError where it is none."""
    settings, background = case["settings"], case["background"]
    placement = settings.get("placement") or {}  # cases of earlier versions tell none
    fields = {
        "domain": str(settings["domain"]),
        "fusion": str(settings["fusion"]),
        "pleuraMargin": float(settings["margins"]["pleura_mm"]),
        "vesselMargin": float(settings["margins"]["vessel_mm"]),
        "minDistance": float(settings["min_distance_mm"]),
        "dangerModel": str(placement.get("danger", AUTO)),
        "priorModel": str(placement.get("prior", AUTO)),
        "temperature": float(placement.get("temperature", 1.0)),
        "caseSeed": int(case["seed"]) % SEEDS,
        "openedSeed": str(int(case["seed"])),
        "openedWatermark": float(settings.get("watermark", 0.0)),
        "openedModality": str(settings.get("modality") or ""),
    }
    if fields["fusion"] not in FUSIONS or fields["domain"] not in DOMAINS or int(case["seed"]) < 0:
        raise ValueError
    if not (0 <= fields["openedWatermark"] <= 1e6 and fields["openedModality"] in ("", "CT")):
        raise ValueError
    if not 0.05 <= fields["temperature"] <= 100:
        raise ValueError
    rows_mm, columns_mm = map(float, background["pixel_spacing_mm"])
    if len(background["shape"]) != 3 or not background["pixel_sha256"] or not min(rows_mm, columns_mm) > 0:
        raise ValueError
    return fields
