"""The editor of one lesion: type from the bank with its picture, origin, size, contrast, rotation, seed, lock."""

import numpy as np
import qt
from slicer.i18n import tr as _

from HiResMedSynthLib.choices import REQUEST_TYPES
from HiResMedSynthPanel import form, wishes
from HiResMedSynthPanel.models import DEFORM, MORE_LESIONS

OWN, CONTRAST, CNR = range(3)
LARGEST_CNR, USUAL_CNR = 100.0, 5.0


class LesionEditor:
    """Shows one wish and changes it."""

    def __init__(self, studio):
        self._studio, self._key, self._showing, self._pictures = studio, None, False, None
        self.widget = qt.QWidget()
        layout = qt.QFormLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        self.widget.setLayout(layout)
        self.kind = form.choice([(name, name) for name in REQUEST_TYPES], _("A type, or one lesion of the bank."))
        self.kind.setIconSize(qt.QSize(32, 32))
        self.kind.connect("currentIndexChanged(int)", self._kind_chosen)
        layout.addRow(_("Type:"), self.kind)
        self.maker = form.choice([], _("Where its form comes from.") + "\n" + MORE_LESIONS)
        self.maker.connect("currentIndexChanged(int)", self._maker_chosen)
        layout.addRow(_("Made from:"), self.maker)
        self.size = form.number(1.0, 150.0, suffix=" mm", step=0.5, tip=_("Diameter of the sphere of equal volume."))
        self.size.connect("valueChanged(double)", self._size_chosen)
        layout.addRow(_("Diameter:"), self.size)
        self.contrast_mode = form.choice(
            [(_("its own"), OWN), (_("contrast"), CONTRAST), (_("visibility (CNR)"), CNR)],
            _("Contrast: mean difference to the surroundings. CNR: the same as a multiple of the noise around it."),
        )
        self.contrast = form.number(-3000.0, 3000.0, step=10.0)
        self.contrast_mode.connect("currentIndexChanged(int)", self._contrast_chosen)
        self.contrast.connect("valueChanged(double)", self._contrast_chosen)
        layout.addRow(_("Contrast:"), form.row(self.contrast_mode, self.contrast, stretch=0))
        self.turned = qt.QCheckBox(_("turned by"))
        self.turned.setToolTip(_("Unticked: the turn is drawn from the seed."))
        self.rotation = form.number(-180.0, 180.0, suffix="\u00b0", decimals=0, step=15.0)
        self.turned.connect("toggled(bool)", self._rotation_chosen)
        self.rotation.connect("valueChanged(double)", self._rotation_chosen)
        layout.addRow(_("Rotation:"), form.row(self.turned, self.rotation, stretch=1))
        self.seed = qt.QSpinBox()
        self.seed.setKeyboardTracking(False)
        self.seed.setRange(0, 2147483647)
        self.seed.setToolTip(_("Another seed: another lesion of the same wish."))
        self.seed.connect("valueChanged(int)", self._seed_chosen)
        self.another = form.button(_("Another"), self._another, _("Takes the next seed that no other lesion has."))
        layout.addRow(_("Seed:"), form.row(self.seed, self.another, stretch=0))
        self.lock = qt.QCheckBox(_("Lock"))
        self.lock.setToolTip(_("A locked lesion can't be dragged, and variants leave it as it is."))
        self.lock.connect("toggled(bool)", self._lock_chosen)
        self.nearest = form.button(_("To nearest allowed"), self._move)
        self.delete = form.button(_("Delete"), self._delete, _("Takes this lesion away."))
        layout.addRow(form.row(self.lock, self.nearest, self.delete))

    def show(self, key):
        """Shows a lesion's wish; None: nothing is selected."""
        studio = self._studio
        index = -1 if key is None else wishes.index_of(studio.parameters.points, key)
        self.widget.setVisible(index >= 0)
        self._key = key if index >= 0 else None
        if index < 0:
            return
        wish = wishes.read(studio.parameters.points, index)
        self._showing = True
        self._offer_bank()
        self.kind.setCurrentIndex(max(self.kind.findData(wish.bank_entry or wish.type), 0))
        form.offer(self.maker, studio.models.makers(), wish.maker, complete=studio.models.known)
        form.show_number(self.size, wish.size_mm[0])
        mode = CONTRAST if wish.contrast is not None else CNR if wish.cnr is not None else OWN
        self.contrast_mode.setCurrentIndex(mode)
        self.contrast.setEnabled(mode != OWN)
        self.contrast.setSuffix(self._unit() if mode == CONTRAST else "")
        drawn = studio.composition.drawn(key) if studio.composition is not None else None
        if mode == OWN:
            form.show_number(self.contrast, drawn["contrast"] if drawn is not None else 0.0)
        else:
            form.show_number(self.contrast, (wish.contrast or wish.cnr)[0])
        self.turned.setChecked(wish.rotation_degrees is not None)
        self.rotation.setEnabled(wish.rotation_degrees is not None)
        form.show_number(self.rotation, wish.rotation_degrees or 0.0)
        form.show_number(self.seed, wish.seed)
        self.lock.setChecked(wish.locked)
        refused = studio.refused.get(key)
        missing = [] if refused else [_("This lesion stands where it may.")]
        if refused and refused["nearest"] is None:
            missing = [_("No place near it is permitted for this size.")]
        form.enable(self.nearest, _("Moves it to the nearest permitted place."), missing)
        self._showing = False

    def _unit(self):
        return " HU" if self._studio.image is not None and self._studio.image.header.units == "HU" else ""

    def _offer_bank(self):
        """The bank's entries with their pictures below the types, once they are known."""
        pictures = self._studio.pictures
        if self._pictures is pictures:
            return
        self._pictures = pictures
        while self.kind.count > len(REQUEST_TYPES):
            self.kind.removeItem(len(REQUEST_TYPES))
        for name, card in sorted(self._studio.cards.items()):
            icon = picture_icon(pictures[name])
            self.kind.addItem(icon, f"{name} ({card['diameter_mm']:g} mm)", name)

    def _edit(self, title, **fields):
        if not self._showing and self._key is not None:
            self._studio.edit(self._key, title, **fields)

    def _kind_chosen(self, index):
        value = self.kind.itemData(index)
        if value in REQUEST_TYPES:
            self._edit(_("change the type"), type=value, bank_entry=None)
        elif value is not None:
            self._edit(_("change the type"), type="any", bank_entry=value, **_made_by(DEFORM))

    def _maker_chosen(self, index):
        value, studio = self.maker.itemData(index), self._studio
        if self._showing or self._key is None or value is None:
            return
        wish = wishes.read(studio.parameters.points, wishes.index_of(studio.parameters.points, self._key))
        fields = _made_by(value)
        if value != DEFORM:  # networks start from no bank entry, and one of a single lesion makes its type
            made = studio.models.lesion_type(fields["model"])
            fields.update(bank_entry=None, type="any" if made not in (None, wish.type) else wish.type)
        self._edit(_("change what a lesion is made from"), **fields)

    def _size_chosen(self, value):
        self._edit(_("change the size"), size_mm=(value, value))

    def _contrast_chosen(self, _value):
        mode, value = self.contrast_mode.currentIndex, (self.contrast.value, self.contrast.value)
        shown = self._studio.domain, self._studio.parameters.domain
        below = -LARGEST_CNR if "mr" in shown else 0.0  # there a lesion may be darker
        if mode == CNR and not self._showing and not (below <= value[0] <= LARGEST_CNR and value[0]):
            value = (USUAL_CNR, USUAL_CNR)
        self._edit(
            _("change the contrast"), contrast=value if mode == CONTRAST else None, cnr=value if mode == CNR else None
        )

    def _rotation_chosen(self, _value):
        self._edit(_("turn a lesion"), rotation_degrees=self.rotation.value if self.turned.checked else None)

    def _seeds(self):
        return {w.seed for _i, w, _p in wishes.placed(self._studio.parameters.points) if w.key != self._key}

    def _seed_chosen(self, value):
        if not self._showing and value in self._seeds():
            self._studio.say(_("Another lesion has the seed {seed} already.").format(seed=value), problem=True)
            return
        self._edit(_("change the seed"), seed=value, attempt=0)

    def _another(self):
        seeds, seed = self._seeds(), self.seed.value + 1
        while seed in seeds:
            seed += 1
        self._edit(_("another lesion"), seed=seed, attempt=0)

    def _lock_chosen(self, locked):
        self._edit(_("lock a lesion") if locked else _("unlock a lesion"), locked=locked)

    def _move(self):
        self._studio.move_to_nearest(self._key)

    def _delete(self):
        self._studio.delete(self._key)


def _made_by(maker):
    """The fields of a wish with that maker."""
    generator, _space, model = maker.partition(" ")
    return {"generator": generator, "model": model or None, "model_sha256": None}


def picture_icon(picture):
    """An icon of a uint8 `[row, column]` picture."""
    rows, columns = picture.shape
    pixmap = qt.QPixmap()
    pixmap.loadFromData(b"P5 %d %d 255\n" % (columns, rows) + np.ascontiguousarray(picture).tobytes())
    return qt.QIcon(pixmap)
