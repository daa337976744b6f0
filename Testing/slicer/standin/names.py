"""Each name that the stand-in offers, and the file of Slicer, CTK or PythonQt whose behaviour it copies."""

QT = "PythonQt: src/PythonQtInstanceWrapper.cpp, src/PythonQtSignalReceiver.cpp"
HEADERS = {
    "qt": QT,
    "ctk.ctkCollapsibleButton": "CTK: Libs/Widgets/ctkCollapsibleButton.h",
    "ctk.ctkPathLineEdit": "CTK: Libs/Widgets/ctkPathLineEdit.h",
    "slicer.qMRMLNodeComboBox": "Libs/MRML/Widgets/qMRMLNodeComboBox.h",
    "slicer.qSlicerMarkupsPlaceWidget": "Modules/Loadable/Markups/Widgets/qSlicerMarkupsPlaceWidget.h",
    "slicer.app": "Base/QTGUI/qSlicerApplication.h, Base/QTCore/qSlicerCoreApplication.h",
    "slicer.app.layoutManager": "Base/QTGUI/qSlicerLayoutManager.h",
    "slicer.app.layoutManager.sliceWidget": "Libs/MRML/Widgets/qMRMLSliceWidget.h",
    "slicer.mrmlScene": "Base/QTCore/qSlicerCoreApplication.h",
    "slicer.modules": "Base/QTCore/qSlicerModuleManager.h",
    "slicer.dicomDatabase": "CTK: Libs/DICOM/Core/ctkDICOMDatabase.h",
    "slicer.i18n": "Base/Python/slicer/i18n.py",
    "slicer.packaging": "Base/Python/slicer/packaging.py",
    "slicer.parameterNodeWrapper": "Base/Python/slicer/parameterNodeWrapper/",
    "slicer.ScriptedLoadableModule": "Base/Python/slicer/ScriptedLoadableModule.py",
    "SampleData": "Modules/Scripted/SampleData/SampleData.py",
    "DICOMLib": "Modules/Scripted/DICOMLib/DICOMUtils.py, DICOMScalarVolumePlugin.py",
}
