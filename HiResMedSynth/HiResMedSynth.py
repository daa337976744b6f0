"""HiResMedSynth composes synthetic cases: module, widget, logic and self-test; the work is in the panel."""

import importlib
import importlib.util
import sys
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if importlib.util.find_spec("HiResMedSynthLib") is None:  # a checkout: only this folder is on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


class HiResMedSynth(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("HiResMedSynth")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = ["Markups", "Segmentations", "Volumes"]
        parent.contributors = ["HiResMedSynth developers"]
        parent.helpText = _(
            "Composes synthetic cases: choose a radiograph, CT slice or CT volume, see where lesions occurred before "
            "and where they must not go, place lesions, export a marked synthetic DICOM series with segmentation and "
            "boxes. Research only."
        )
        parent.acknowledgementText = _(
            "The lesions that ship are cut from LIDC-IDRI (CC BY 3.0). Sample data is made up by the module itself."
        )
        slicer.app.connect("startupCompleted()", self.registerSampleData)

    def registerSampleData(self):
        """Lists the samples once Slicer is up."""
        from HiResMedSynthPanel import sample_data

        sample_data.register()


class HiResMedSynthWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: sections from top to bottom over one studio, a status line at the end."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic, self.studio, self.panel, self._gui = None, None, None, None

    def setup(self):
        """Builds the panel, once."""
        ScriptedLoadableModuleWidget.setup(self)
        from HiResMedSynthPanel.panel import Panel
        from HiResMedSynthPanel.studio import Studio

        self.logic = HiResMedSynthLogic()
        self.studio = Studio()
        self.panel = Panel(self.studio)
        self.layout.addWidget(self.panel.widget)
        self.panel.setMRMLScene(slicer.mrmlScene)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneChanged)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeRemoved)
        slicer.app.connect("aboutToQuit()", self.cleanup)
        if self.parent.isEntered:  # after a reload nobody enters
            self.attach()

    def enter(self):
        """The module is shown."""
        self.attach()

    def exit(self):
        """Another module is shown: what others see stays, our foreground goes."""
        if self.studio is not None:
            self.panel.stop_placing()
            self.studio.leave()
        self.disconnectGui()

    def cleanup(self):
        """The module goes: nothing of it may stay behind."""
        if self.studio is None:
            return
        self.disconnectGui()
        self.removeObservers()
        slicer.app.disconnect("aboutToQuit()", self.cleanup)
        self.panel.close()
        self.studio.close()
        self.studio = None

    def onReload(self):
        """Reload also takes the panel's own files anew, in the order of their imports."""
        self.cleanup()
        for name in [name for name in sys.modules if name.startswith(("HiResMedSynthPanel", "HiResMedSynthLib"))]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, _caller, _event):
        """The scene goes, or another comes: let go of it."""
        self.disconnectGui()
        self.panel.compose.variants.stop()
        if self.studio.parameters is not None:
            self.studio.detach()
        self.panel.refresh()

    def onSceneChanged(self, _caller, _event):
        """The scene is another one."""
        if self.parent.isEntered:
            qt.QTimer.singleShot(0, self.attach)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, _caller, _event, node):
        """A node that we work on is deleted by the user."""
        if self.studio is not None and self.studio.parameters is not None:
            self.studio.node_goes(node)

    def attach(self):
        """Works on the parameter node of the present scene."""
        if self.studio is None:
            return
        parameters = self.logic.getParameterNode()
        if self.studio.parameters is None or self.studio.parameters.parameterNode is not parameters.parameterNode:
            self.studio.attach(parameters)
        if self._gui is None:
            self._gui = self.studio.parameters.connectParametersToGui(self.panel.bound_widgets())
        self.studio.enter()
        self.panel.refresh()

    def disconnectGui(self):
        """Lets go of the parameter node's widgets."""
        if self._gui is not None and self.studio is not None and self.studio.parameters is not None:
            self.studio.parameters.disconnectGui(self._gui)
        self._gui = None


class HiResMedSynthLogic(ScriptedLoadableModuleLogic):
    """What scripts may call without a panel."""

    def getParameterNode(self):
        """The typed parameter node of the scene."""
        from HiResMedSynthPanel.parameters import Parameters

        return Parameters(super().getParameterNode())

    def client(self, url, token):
        """A client of a running backend; see HiResMedSynthLib.service.client."""
        from HiResMedSynthLib.service.client import BackendClient

        return BackendClient(url, token)


class HiResMedSynthTest(ScriptedLoadableModuleTest):
    """What can be tested without a backend; Testing/slicer/in_slicer.py does the whole way."""

    def setUp(self):
        """An empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        """Called by the Reload and Test button."""
        self.setUp()
        self.test_parameters_survive()
        self.test_sample_becomes_an_image()

    def test_parameters_survive(self):
        """A field of the parameter node is read as it was written."""
        parameters = HiResMedSynthLogic().getParameterNode()
        parameters.caseSeed = 7
        self.assertEqual(HiResMedSynthLogic().getParameterNode().caseSeed, 7)

    def test_sample_becomes_an_image(self):
        """The geometry that is sent is that of the volume, in LPS."""
        from HiResMedSynthPanel import sample_data
        from HiResMedSynthPanel.slicer_image import SlicerImage, refusal

        node = sample_data.load("ct")
        self.assertIsNone(refusal(node))
        image = SlicerImage(node)
        self.assertEqual(image.header.units, "HU")
        place = (3.0, 40.0, 50.0)
        for got, wanted in zip(image.place_of(image.world_of(place)), place, strict=False):
            self.assertAlmostEqual(got, wanted, places=6)
