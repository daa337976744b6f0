"""Section Annotate: mark real lesions in real images; so a site teaches its own location prior."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import form
from HiResMedSynthPanel.annotations import Annotations
from HiResMedSynthPanel.exporter import free_folder
from HiResMedSynthPanel.overlays import ROLE
from HiResMedSynthPanel.words import sentences


class AnnotateSection:
    """Points, boxes and segments on one image after the other; saved as a folder."""

    def __init__(self, studio):
        self._studio = studio
        self.annotations = Annotations()
        self.widget, layout = form.section(_("Annotate real lesions"), collapsed=True)
        self.image = slicer.qMRMLNodeComboBox()
        self.image.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.image.addEnabled = False
        self.image.removeEnabled = False
        self.image.showChildNodeTypes = False  # a label map is a scalar volume too
        self.image.setToolTip(_("The image in which lesions are marked."))
        self.image.connect("currentNodeChanged(vtkMRMLNode*)", self._image_chosen)
        self.next = form.button(_("Next image"), self._next, _("Goes to the next image of the scene."))
        layout.addRow(_("Image:"), form.row(self.image, self.next, stretch=0))
        self.name = qt.QLineEdit("nodule")
        self.name.setToolTip(_("Class of the lesions that are marked from now on."))
        self.size = form.number(0.0, 200.0, suffix=" mm", tip=_("Diameter of a marked point; 0: not known."))
        layout.addRow(_("Class:"), form.row(self.name, self.size, stretch=0))
        self.comment = qt.QLineEdit()
        self.comment.setPlaceholderText(_("comment (never a name)"))
        layout.addRow(_("Comment:"), self.comment)
        self.place = slicer.qSlicerMarkupsPlaceWidget()
        self.place.buttonsVisible = False
        self.place.placeButton().show()
        self.place.placeMultipleMarkups = slicer.qSlicerMarkupsPlaceWidget.ForcePlaceMultipleMarkups
        self.place.placeButton().setToolTip(_("Then click on each lesion; press again to end."))
        self.box = form.button(_("Add box"), self._add_box, _("Adds a box in the middle of the red view, to be moved."))
        layout.addRow(form.row(self.place, self.box))
        self.segments = slicer.qMRMLNodeComboBox()
        self.segments.nodeTypes = ["vtkMRMLSegmentationNode"]
        self.segments.addEnabled = False
        self.segments.removeEnabled = False
        self.segments.noneEnabled = True
        self.segments.setToolTip(_("A segmentation of this image: each segment is a lesion, its name the class."))
        self.segments.connect("currentNodeChanged(vtkMRMLNode*)", self._segments_chosen)
        self.take = form.button(_("Take segments"), self._take_segments, _("Counts its segments as marks."))
        layout.addRow(_("Segments:"), form.row(self.segments, self.take, stretch=0))
        self.list = qt.QListWidget()
        self.list.setMinimumHeight(80)
        self.list.connect("currentRowChanged(int)", self._mark_chosen)
        self.delete = form.button(_("Delete mark"), self._delete, _("Takes the chosen mark away."))
        self.change = form.button(_("Change mark"), self._change, _("Gives the chosen mark this class and comment."))
        layout.addRow(self.list)
        layout.addRow(form.row(self.change, self.delete))
        tip = _("Saving makes a new folder in this one; loading reads this one.")
        self.folder = form.path(self.refresh, folder=True, tip=tip)
        layout.addRow(_("Folder:"), self.folder)
        self.save = form.button(_("Save all"), self._save)
        self.load = form.button(_("Load"), self._load)
        layout.addRow(form.row(self.save, self.load))
        self.annotations.changed.connect(self.refresh)
        studio.changed.connect(self.refresh)
        self.widget.connect("contentsCollapsed(bool)", self._image_chosen)

    def refresh(self):
        """Shows the marks of the chosen image."""
        if self.widget.collapsed:
            return
        node = self.image.currentNode()
        points = self.annotations.points_of(node) if node is not None else None
        if self.place.currentNode() is not points:
            self.place.setCurrentNode(points)
        marks = self.annotations.marks_of(node) if node is not None else []
        texts = [mark.text for mark in marks]
        if [self.list.item(k).text() for k in range(self.list.count)] != texts:
            chosen = self.list.currentRow if self.list.count == len(texts) else -1
            self.list.clear()
            for text in texts:
                self.list.addItem(text)
            self.list.setCurrentRow(chosen)
        self.box.setEnabled(node is not None)
        self.take.setEnabled(node is not None and self.segments.currentNode() is not None)
        self._mark_chosen()
        count = len(self.annotations.images())
        missing = [] if count else [_("a mark in an image")]
        missing += [] if self.folder.currentPath.strip() else [_("a folder")]
        tip = _("Writes images, masks, boxes (COCO, YOLO) and DICOM SEG of {n} image(s).").format(n=count)
        form.enable(self.save, tip, missing)
        form.enable(self.load, _("Reads images and marks."), [] if self.folder.currentPath.strip() else [_("a folder")])

    def _image_chosen(self, _value):
        node = self.image.currentNode()
        fits = node is not None and not node.GetAttribute(ROLE)
        if fits and self._studio.parameters is not None and not self.widget.collapsed:
            self.annotations.make_points(node, self._defaults)
        elif node is not None and not fits and not self.widget.collapsed:
            self._studio.say(_("This is a result of HiResMedSynth. Annotate real images."), problem=True)
        self.refresh()

    def _mark_chosen(self, _row=None):
        for button in (self.change, self.delete):
            button.setEnabled(self.list.currentRow >= 0)

    def _segments_chosen(self, _node):
        self.refresh()

    def _defaults(self):
        return {"class": self.name.text.strip(), "size": self.size.value, "comment": self.comment.text.strip()}

    def _next(self):
        nodes = self.annotations.candidates()
        if nodes:
            now = self.image.currentNode()
            index = nodes.index(now) + 1 if now in nodes else 0
            self.image.setCurrentNode(nodes[index % len(nodes)])
            slicer.util.setSliceViewerLayers(background=self.image.currentNode(), fit=True)
        self._image_chosen(None)

    def _add_box(self):
        layouts = slicer.app.layoutManager()
        center = [0.0, 0.0, 0.0]
        if layouts is not None:
            matrix = layouts.sliceWidget("Red").mrmlSliceNode().GetSliceToRAS()
            center = [matrix.GetElement(k, 3) for k in range(3)]
        self.annotations.add_box(self.image.currentNode(), center, self._defaults())

    def _take_segments(self):
        self.annotations.take_segments(self.image.currentNode(), self.segments.currentNode())

    def _delete(self):
        self.annotations.delete(self.image.currentNode(), self.list.currentRow)

    def _change(self):
        self.annotations.change(self.image.currentNode(), self.list.currentRow, self._defaults())

    def _save(self):
        studio, parent = self._studio, Path(self.folder.currentPath.strip())
        if not parent.is_dir():
            studio.say(_("There is no folder {path}. Choose one that exists.").format(path=parent), problem=True)
            return
        problem, prepare = self.annotations.sending(studio.parameters.background, studio.spacing())
        if problem:
            studio.say(problem, problem=True)
            return

        def done(folder):
            told = _("Written: {folder}.").format(folder=folder)
            studio.say(" ".join([told, *sentences(ticket.notes)]), problem=bool(ticket.notes))

        ticket = studio.session.run(
            "save_annotations",
            title=_("Saving the annotations"),
            parameters=prepare,
            out=free_folder(parent, "annotations"),
            done=done,
            failed=studio.failed,
        )

    def _load(self):
        studio, folder = self._studio, Path(self.folder.currentPath.strip())
        if not folder.is_dir():
            studio.say(_("There is no folder {path}. Choose one that exists.").format(path=folder), problem=True)
            return
        studio.session.run(
            "load_annotations",
            title=_("Loading the annotations"),
            parameters=lambda client: {"folder": client.send_folder(folder)},
            done=self._loaded,
            failed=studio.failed,
        )

    def _loaded(self, result):
        nodes = self.annotations.show(*result, self._defaults)
        if nodes:
            self.image.setCurrentNode(nodes[0])
            slicer.util.setSliceViewerLayers(background=nodes[0], fit=True)
        self._studio.say(_("{n} image(s) with their marks were loaded.").format(n=len(nodes)))
