"""Section Lesions: place points, see what each became, change it."""

import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import form, wishes
from HiResMedSynthPanel.lesion_editor import LesionEditor
from HiResMedSynthPanel.words import in_panel_words

COLUMNS = 4
NUMBER, KIND, SIZE, STATE = range(COLUMNS)
KEY_ROLE = int(qt.Qt.UserRole)


def zones():
    """(text, value) of the parts of the patient that suggestions can be kept to."""
    return (
        (_("anywhere"), ""),
        (_("left"), "left"),
        (_("right"), "right"),
        (_("upper"), "upper"),
        (_("lower"), "lower"),
        (_("left upper"), "left-upper"),
        (_("left lower"), "left-lower"),
        (_("right upper"), "right-upper"),
        (_("right lower"), "right-lower"),
    )


class LesionsSection:
    """The table of lesions, with an editor for the selected one."""

    def __init__(self, studio):
        self._studio = studio
        self._filling, self._keys = False, []
        self.widget, layout = form.section(_("Lesions"))
        self.place = slicer.qSlicerMarkupsPlaceWidget()
        self.place.buttonsVisible = False
        self.place.placeButton().show()
        self.place.placeMultipleMarkups = slicer.qSlicerMarkupsPlaceWidget.ForcePlaceMultipleMarkups
        self.place.placeButton().setToolTip(_("Then click in a slice view for each lesion; press again to end."))
        self.suggest = form.button(_("Suggest"), self._suggest)
        self.count = form.whole("suggestCount", 1, 100, _("How many lesions to suggest."))
        self.zone = form.choice(zones(), _("In which part of the patient lesions are suggested."))
        self.zone.connect("currentIndexChanged(int)", self._zone_chosen)
        layout.addRow(form.row(self.place, self.suggest, self.count, self.zone, stretch=3))
        self.table = qt.QTableWidget(0, COLUMNS)
        self.table.setHorizontalHeaderLabels([_("No."), _("Type"), _("mm"), _("State")])
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setMinimumHeight(110)
        self.table.setToolTip(
            _("The lesions of this case. Choose one to see its slice and to change it; rest on a (!) to read why.")
        )
        self.table.setColumnWidth(NUMBER, 36)
        self.table.setColumnWidth(KIND, 100)
        self.table.setColumnWidth(SIZE, 48)
        self.table.connect("itemSelectionChanged()", self._selected)
        layout.addRow(self.table)
        self.editor = LesionEditor(studio)
        layout.addRow(self.editor.widget)
        studio.changed.connect(self.refresh)

    @property
    def selected_key(self):
        """Key of the selected lesion, or None."""
        item = self.table.item(self.table.currentRow(), NUMBER)
        return None if item is None else int(item.data(KEY_ROLE))

    def select(self, key):
        """Selects a lesion's row."""
        for number in range(self.table.rowCount):
            if int(self.table.item(number, NUMBER).data(KEY_ROLE)) == key:
                self.table.setCurrentCell(number, NUMBER)
                return

    def refresh(self):
        """Shows the state of the studio."""
        studio = self._studio
        node = studio.parameters.points if studio.parameters is not None else None
        if self.place.currentNode() is not node:
            self.place.setCurrentNode(node)
        missing = [] if studio.is_ready else [_("an image")]
        form.enable(self.suggest, _("Adds lesions at likely places, away from the others."), missing)
        self.place.setEnabled(studio.is_ready)
        if studio.parameters is not None:
            form.offer(self.zone, zones(), studio.parameters.suggestZone)
        rows = wishes.placed(node)
        chosen = self.selected_key
        self._filling = True
        self.table.setRowCount(len(rows))
        for number, (_index, wish, position) in enumerate(rows):
            self._fill(number, wish, position)
        keys = [wish.key for _index, wish, _position in rows]
        new = [key for key in keys if key not in self._keys]
        self._keys = keys
        if keys:
            wanted = new[-1] if new else chosen if chosen in keys else keys[-1]
            self.table.setCurrentCell(keys.index(wanted), NUMBER)
        self._filling = False
        self.editor.show(self.selected_key)

    def _fill(self, number, wish, position):
        studio = self._studio
        drawn = studio.composition.drawn(wish.key) if studio.composition is not None else None
        refused = studio.refused.get(wish.key)
        low, high = wish.size_mm
        size = f"{low:g}" if low == high else f"{low:g}-{high:g}"
        notes = studio.composition.notes(wish.key) if drawn is not None else ()
        state = self._state(drawn, refused, position)
        texts = [str(wish.key), wish.what, size, f"{state} (!)" if notes else state]
        for column, text in enumerate(texts):
            item = self.table.item(number, column)
            if item is None:
                item = qt.QTableWidgetItem()
                self.table.setItem(number, column, item)
            if item.text() != text:
                item.setText(text)
            told = refused["what"] + ". " + in_panel_words(refused["remedy"]) if refused else "\n".join([text, *notes])
            item.setToolTip(told)
            item.setData(int(qt.Qt.ForegroundRole), qt.QBrush(qt.QColor(225, 60, 45)) if refused else None)
        self.table.item(number, NUMBER).setData(KEY_ROLE, wish.key)
        self.table.item(number, NUMBER).setText(str(wish.key) + (" \U0001f512" if wish.locked else ""))

    def _state(self, drawn, refused, position):
        if refused is not None:
            return _("not allowed: {why}").format(why=refused["what"].partition("would touch: ")[2] or refused["what"])
        image = self._studio.image
        if image is not None and image.slice_index is not None and image.slice_of(position) != image.slice_index:
            return _("in another slice")
        if drawn is None:
            return _("to be composed")
        visibility = _(", CNR {cnr:.1f}").format(cnr=drawn["cnr"]) if drawn["mode"] == "blend" else ""
        return f"{drawn['type']}, {drawn['diameter_mm']:.1f} mm{visibility}"

    def _selected(self):
        if self._filling:
            return
        key = self.selected_key
        self.editor.show(key)
        if key is not None:
            self._studio.jump_to(key)

    def _zone_chosen(self, index):
        self._studio.parameters.suggestZone = self.zone.itemData(index) or ""

    def _suggest(self):
        self._studio.suggest(self._studio.parameters.suggestCount)
