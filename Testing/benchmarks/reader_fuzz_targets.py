"""What is fuzzed: every reader of the library with small intact inputs of its own, made from nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

if TYPE_CHECKING:
    from HiResMedSynthLib.lesion.lesion import Lesion

GREY = (np.arange(34 * 36).reshape(34, 36) * 7 % 4096).astype(np.uint16)
CT_STORED = np.stack([GREY + k for k in range(3)])
SPEC = """\
[backgrounds]
files = ["scans/*", "film.png"]
slices = "each"
spacing_mm = [0.14, 0.15]
generated = { count = 20, seed = 3, sex = "F", size = 512 }

[cases]
count = 100
seed = 7
domain = "lung-ct"
lesions = { "1" = 3, "2" = 1 }
types = { solid = 2, ground-glass = 1 }
size_mm = [{ range = [4, 8], weight = 3 }, { range = [8, 20] }]
sizes = "history"
cnr = [2, 6]
zones = { left = 1, right = 2 }
negatives = 0.1
paired = true
temperature = 1.5

[output]
name = "Set1"
formats = ["dicom", "coco", "yolo"]
split = { train = 0.8, test = 0.2 }
preview = true
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One intact input and what reads it.

    Args:
        name: "reader/input"; also the folder of its files.
        read: the reader.
        opened: name of the file that the reader is given, "" for the folder.
        damaged: names of the files that may be damaged; empty: any.
        weight: how often it is taken.
    """

    name: str
    read: Callable[[Path], object]
    opened: str = ""
    damaged: tuple[str, ...] = ()
    weight: int = 2


# -- readers -----------------------------------------------------------------------------------------------------------
def read_picture(path: Path) -> None:
    """What `inspect` does."""
    from HiResMedSynthLib.inspect import describe
    from HiResMedSynthLib.read import read_image

    describe(read_image(path))


def read_one_slice(path: Path) -> None:
    """What --slice and --spacing-mm do."""
    from HiResMedSynthLib.read import read_image

    read_image(path, slice_index=0, spacing_mm=(0.5, 0.7))


def read_provenance(path: Path) -> None:
    """What `verify` does."""
    from HiResMedSynthLib.provenance import provenance_of

    provenance_of(path).summary()


def read_labelled(path: Path) -> None:
    """What `data check` reads."""
    from HiResMedSynthLib.annotations import read_annotations

    for one in read_annotations(path):
        one.label_map()


def read_set(path: Path) -> None:
    """What `evaluate` reads."""
    from HiResMedSynthLib.evaluation.image_sets import find_images, read_source

    for source in find_images(path):
        read_source(source)


def read_outline(path: Path) -> None:
    """What `lesion train --mask` reads: mask.nrrd on image.nrrd."""
    from HiResMedSynthLib.lesion.outline import outline_from_mask
    from HiResMedSynthLib.read import read_image

    outline_from_mask(read_image(path / "image.nrrd"), read_image(path / "mask.nrrd"))


def read_whole_case(path: Path) -> None:
    """What `compose --case` does: the case is read and applied to its background; a changed hash is put right."""
    from HiResMedSynthLib.case_file import read_case
    from HiResMedSynthLib.compose import compose
    from Testing.export.cases import ct_image

    with_right_hash(path)
    compose(ct_image(), read_case(path))


def with_right_hash(folder: Path) -> None:
    """Writes the hash of lesions.safetensors into case.json, where that still is a document with a place for it."""
    try:
        document = json.loads((folder / "case.json").read_bytes())
        document["arrays"]["sha256"] = hashlib.sha256((folder / "lesions.safetensors").read_bytes()).hexdigest()
        (folder / "case.json").write_text(json.dumps(document))
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        return


def read_wishes(path: Path) -> None:
    """What `compose --request` reads."""
    from HiResMedSynthLib.case_file import read_requests

    read_requests(path)


def read_bank(path: Path) -> None:
    """Own lesions as the panel sends them back, each looked at."""
    from HiResMedSynthLib.lesion.bank import bank_from_bytes

    bank = bank_from_bytes(path.read_bytes())
    for name in bank.cards:
        bank.lesion(name)


def read_model(path: Path) -> None:
    """The card and the lesion in a model file of the user's."""
    from HiResMedSynthLib import weights
    from HiResMedSynthLib.lesion.trained import source_of

    card = weights.read_card(path)
    source_of(weights.Model(card=card, path=path, shipped=False))


def read_dataset_spec(path: Path) -> None:
    """The spec of a data set; its files are not looked for."""
    from HiResMedSynthLib.batch.spec import read_spec

    spec = read_spec(path)
    _ = spec.sha256, spec.cases.margins, spec.cases.placement, spec.backgrounds.spacing


def read_design(path: Path) -> None:
    """Design and answers of a reader study."""
    from HiResMedSynthLib.evaluation.reader_study import open_study
    from HiResMedSynthLib.evaluation.study_answers import read_answers

    study = open_study(path)
    study.check_pictures()
    read_answers(study)


def read_key(path: Path) -> None:
    """The key of a reader study, whose hash is put right in the design."""
    from HiResMedSynthLib.evaluation import reader_study

    design = json.loads((path / "design.json").read_bytes())
    design["key_sha256"] = hashlib.sha256((path / "key.json").read_bytes()).hexdigest()
    (path / "design.json").write_text(json.dumps(design))
    reader_study.read_key(reader_study.open_study(path))


# -- their inputs ------------------------------------------------------------------------------------------------------
TARGETS = (
    *(Target(name=f"image/{name}", read=read_picture, opened=name, weight=weight) for name, weight in (
        ("ct.dcm", 8), ("film.dcm", 6), ("enhanced.dcm", 6), ("deflated.dcm", 2), ("rle.dcm", 3), ("jpegls.dcm", 3),
        ("j2k.dcm", 3), ("jpeg.dcm", 3), ("jpegll.dcm", 4), ("bare.dcm", 2), ("a.nrrd", 3), ("gzip.nrrd", 3),
        ("a.nhdr", 2), ("a.nii", 3), ("a.nii.gz", 3), ("pair.hdr", 1), ("a.mha", 3), ("packed.mha", 1), ("a.mhd", 1),
        ("grey8.png", 3), ("grey16.png", 3), ("palette.png", 2), ("a.jpg", 3), ("grey8.tif", 2), ("grey16.tif", 2),
        ("float.tif", 1), ("lzw.tif", 1), ("a.jp2", 2), ("a.j2k", 1),
    )),
    Target(name="image/series", read=read_picture, weight=5),
    *(Target(name=f"slice/{name}", read=read_one_slice, opened=name, weight=1)
      for name in ("enhanced.dcm", "gzip.nrrd", "a.nii.gz", "grey16.png")),
    *(Target(name=f"verify/{name}", read=read_provenance, opened=name, weight=1)
      for name in ("ct.dcm", "a.nrrd", "a.nii.gz", "grey8.png", "a.jpg")),
    Target(name="verify/case", read=read_provenance),
    *(Target(name=f"labels/{name}", read=read_labelled, weight=weight)
      for name, weight in (("own", 3), ("yolo", 3), ("masks", 3), ("nnunet", 2), ("dicom", 2))),
    *(Target(name=f"evaluate/{name}", read=read_set, weight=1) for name in ("case", "yolo", "dicom")),
    Target(name="mask/nrrd", read=read_outline),
    Target(name="case/case", read=read_whole_case, weight=8),
    Target(name="request/list", read=read_wishes, opened="wishes.json", weight=3),
    Target(name="request/case", read=read_wishes, opened="case.json", weight=1),
    Target(name="bank/bank", read=read_bank, opened="bank.safetensors", weight=5),
    Target(name="model/model", read=read_model, opened="model.safetensors", weight=4),
    Target(name="spec/spec", read=read_dataset_spec, opened="spec.toml", weight=8),
    Target(name="study/answers", read=read_design, damaged=("answers.jsonl",), weight=4),
    Target(name="study/design", read=read_design, damaged=("design.json",), weight=3),
    Target(name="study/key", read=read_key, damaged=("key.json",), weight=2),
)  # fmt: skip


def write_inputs(root: Path) -> None:
    """root/READER/INPUT/... for each target; the same bytes each time, but for the times of day in a few files."""
    counter = itertools.count(10**20)
    with mock.patch("secrets.randbelow", lambda most: next(counter) % most):
        made = root / "made"
        write_pictures(made / "pictures")
        _others(made)
    for target in TARGETS:
        reader, name = target.name.split("/", 1)
        folder = root / target.name
        if (made / reader / name).is_dir():
            shutil.copytree(made / reader / name, folder)
        elif (made / "folders" / name).is_dir():
            shutil.copytree(made / "folders" / name, folder)
        else:
            folder.mkdir(parents=True)
            for file in _parts(made / "pictures" / name):
                shutil.copy(file, folder)
    shutil.rmtree(made)


def _parts(path: Path) -> Iterator[Path]:
    """A file and the one that holds its voxels, where that is another."""
    yield path
    held = {"a.nhdr": "a.raw", "a.mhd": "a.zraw", "pair.hdr": "pair.img"}.get(path.name)
    if held is not None:
        yield path.with_name(held)


def write_pictures(folder: Path) -> None:
    """Small pictures and volumes in every format that is read."""
    import pydicom
    import SimpleITK as sitk
    from PIL import Image
    from pydicom.encaps import encapsulate
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGBaseline8Bit,
        JPEGLSLossless,
        RLELossless,
    )

    from Testing.slices import DX, write_slice
    from Testing.test_read_dicom import enhanced

    plain = {"SOPInstanceUID": "1.2.826.0.1.9", "WindowCenter": -600, "WindowWidth": 1500, "PixelPaddingValue": 0}
    ct = write_slice(folder / "ct.dcm", GREY, BitsStored=12, HighBit=11, **plain)
    write_slice(
        folder / "film.dcm", (GREY % 251).astype(np.uint8), modality="DX", sop_class=DX, PixelSpacing=None,
        ImagerPixelSpacing=[0.2, 0.3], PhotometricInterpretation="MONOCHROME1", ViewPosition="PA",
        PatientOrientation=["L", "F"], BurnedInAnnotation="NO", SOPInstanceUID="1.2.826.0.1.8",
    )  # fmt: skip
    enhanced(folder / "enhanced.dcm", SOPInstanceUID="1.2.826.0.1.7")
    data = pydicom.dcmread(ct)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(folder / "deflated.dcm")
    for name, syntax in (("rle", RLELossless), ("jpegls", JPEGLSLossless), ("j2k", JPEG2000Lossless)):
        data = pydicom.dcmread(ct)
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(folder / f"{name}.dcm")
    Image.fromarray((GREY % 251).astype(np.uint8)).save(folder / "a.jpg", quality=90)
    data = pydicom.dcmread(folder / "film.dcm")
    data.PixelData = encapsulate([(folder / "a.jpg").read_bytes()])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data.save_as(folder / "jpeg.dcm")
    _write_lossless_jpeg(ct, folder / "jpegll.dcm")
    bare = pydicom.dcmread(ct)
    del bare.file_meta
    bare.preamble = None
    bare.save_as(folder / "bare.dcm", implicit_vr=True, little_endian=True, enforce_file_format=False)

    volume = sitk.GetImageFromArray(CT_STORED.astype(np.int16) - 1024)
    volume.SetSpacing((0.7, 0.8, 2.0))
    for name in ("a.nrrd", "gzip.nrrd", "a.nhdr", "a.nii", "a.nii.gz", "pair.hdr", "a.mha", "packed.mha", "a.mhd"):
        packed = name in ("gzip.nrrd", "a.nii.gz", "packed.mha", "a.mhd")
        sitk.WriteImage(volume, str(folder / name), useCompression=packed)
    eight, sixteen = Image.fromarray((GREY % 251).astype(np.uint8)), Image.fromarray(GREY)
    for name in ("grey8.png", "grey8.tif"):
        eight.save(folder / name)
    eight.convert("P").save(folder / "palette.png")
    for name in ("grey16.png", "grey16.tif", "a.jp2", "a.j2k"):
        sixteen.save(folder / name)
    sixteen.save(folder / "lzw.tif", compression="tiff_lzw")
    Image.fromarray(GREY.astype(np.float32)).save(folder / "float.tif")


def _write_lossless_jpeg(source: Path, target: Path) -> None:
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _others(made: Path) -> None:
    import SimpleITK as sitk

    from HiResMedSynthLib.annotations import write_annotations
    from HiResMedSynthLib.evaluation.study_answers import AnswersFile
    from HiResMedSynthLib.export.folder import export
    from HiResMedSynthLib.lesion.bank import BANK_FORMAT, bank_bytes
    from HiResMedSynthLib.weights import Card, write_model
    from Testing import labelled_folders
    from Testing.evaluation.study_folders import ct_slice, small_study
    from Testing.export.cases import composition_in, ct_image
    from Testing.slices import write_stack

    write_stack(made / "image" / "series", CT_STORED, [0.0, 2.0, 4.0])
    for name in ("yolo", "masks", "nnunet"):
        getattr(labelled_folders, name)(made / "folders" / name, 1)
    labelled_folders.dicom(made / "folders" / "dicom", 1)
    write_annotations([ct_slice(k, (20, 20), 3) for k in range(2)], made / "folders" / "own")
    export(composition_in(ct_image(), lesions=2), made / "folders" / "case", with_preview=False)

    folder = made / "mask" / "nrrd"
    folder.mkdir(parents=True)
    mask = np.zeros(CT_STORED.shape, np.uint8)
    mask[1, 5:9, 5:9] = 1
    for name, array in (("image", CT_STORED.astype(np.int16) - 1024), ("mask", mask)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}.nrrd"))

    (made / "case" / "case").mkdir(parents=True)
    (made / "request" / "case").mkdir(parents=True)
    for name in ("case.json", "lesions.safetensors"):
        shutil.copy(made / "folders" / "case" / name, made / "case" / "case")
    shutil.copy(made / "folders" / "case" / "case.json", made / "request" / "case")
    (made / "request" / "list").mkdir()
    wishes = [
        {"place": [1, 12, 13], "size_mm": [10, 12], "type": "solid", "seed": 3, "contrast": [50, 90], "zone": None},
        {"size_mm": [10, 15], "cnr": [4, 8], "rotation_degrees": 30, "sizes": "even", "generator": "deform"},
    ]
    (made / "request" / "list" / "wishes.json").write_text(json.dumps(wishes))

    lesions = [_ball(name) for name in ("a", "b")]
    (made / "bank" / "bank").mkdir(parents=True)
    (made / "bank" / "bank" / "bank.safetensors").write_bytes(bank_bytes(lesions))
    card = Card(
        name="mine", kind="lesion-singan", data="one nodule", licence="CC0-1.0", attribution="nobody", seed=1,
        metrics={"auc": 0.5}, details={"source": "a", "diameter_mm": 8.0},
    )  # fmt: skip
    source = {"format": BANK_FORMAT, "card": dataclasses.asdict(lesions[0].card), "voxel_mm": 0.7}
    alpha = (lesions[0].alpha // 257).astype(np.uint8)
    arrays = {"source.alpha": alpha, "source.intensity_hu": lesions[0].intensity_hu}
    (made / "model" / "model").mkdir(parents=True)
    write_model(made / "model" / "model" / "model.safetensors", arrays, card, metadata={"source": json.dumps(source)})
    (made / "spec" / "spec").mkdir(parents=True)
    (made / "spec" / "spec" / "spec.toml").write_text(SPEC, encoding="utf-8")

    study, _ = small_study(made / "material")
    with AnswersFile(study) as answers:
        for reader in study.design.readers:
            while (trial := answers.next_trial(reader)) is not None:
                answers.add(reader=reader, trial=trial, choice="real", confidence=3, seconds=2.5)
    for name in ("answers", "design", "key"):
        shutil.copytree(study.folder, made / "study" / name)


def _ball(name: str) -> Lesion:
    from HiResMedSynthLib.lesion.lesion import Lesion, LesionCard

    alpha = np.zeros((5, 6, 7), np.uint16)
    alpha[1:-1, 1:-1, 1:-1] = 65535
    card = LesionCard(name=name, origin="made", type="solid", diameter_mm=4.0, licence="-", attribution="-")
    return Lesion(intensity_hu=np.full(alpha.shape, 40, np.int16), alpha=alpha, voxel_mm=0.7, card=card)
