"""What the panel remembers in the scene: saved with it, loaded with it."""

from typing import Annotated

from slicer import (
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTextNode,
)
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


@parameterNodeWrapper
class Parameters:
    """The parameter node of HiResMedSynth; distances in mm, opacities and thresholds in percent."""

    background: vtkMRMLScalarVolumeNode
    composed: vtkMRMLScalarVolumeNode
    points: vtkMRMLMarkupsFiducialNode
    danger: vtkMRMLSegmentationNode
    prior: vtkMRMLScalarVolumeNode
    caseText: vtkMRMLTextNode
    drawnLesions: vtkMRMLTextNode
    ownLesions: vtkMRMLTextNode

    domain: str = ""
    oneSlice: bool = False
    slice: Annotated[int, WithinRange(0, 100000)] = 0
    assumedSpacing: Annotated[float, WithinRange(0.0, 100.0)] = 0.0
    assumedColumnSpacing: Annotated[float, WithinRange(0.0, 100.0)] = 0.0

    showDanger: bool = True
    dangerOpacity: Annotated[int, WithinRange(0, 100)] = 35
    showPrior: bool = False
    priorOpacity: Annotated[int, WithinRange(0, 100)] = 45
    priorThreshold: Annotated[int, WithinRange(1, 100)] = 10
    pleuraMargin: Annotated[float, WithinRange(0.0, 50.0)] = 2.0
    vesselMargin: Annotated[float, WithinRange(0.0, 50.0)] = 1.0
    minDistance: Annotated[float, WithinRange(0.0, 500.0)] = 5.0
    dangerModel: str = "auto"
    priorModel: str = "auto"
    temperature: Annotated[float, WithinRange(0.05, 100.0)] = 1.0

    suggestZone: str = ""
    suggestCount: Annotated[int, WithinRange(1, 100)] = 3
    caseSeed: Annotated[int, WithinRange(0, 2147483647)] = 1
    madeFrom: str = ""  # what the composition of this scene was made from
    openedSeed: str = ""  # of a case made elsewhere, where no spin box holds it
    openedWatermark: Annotated[float, WithinRange(0.0, 1e6)] = 0.0
    openedModality: str = ""
    fusion: str = ""  # not chosen yet: see Studio
    paperFusion: bool = False  # of scenes of earlier versions
    livePreview: bool = True
    showComposed: bool = True
    variants: Annotated[int, WithinRange(1, 1000)] = 5

    exportFolder: str = ""
    exportPair: bool = True
    exportChangedOnly: bool = False
    exportLabelMap: bool = False
    exportToDatabase: bool = False
    patientName: str = ""
    patientId: str = ""
    studyDescription: str = ""
    seriesDescription: str = ""
