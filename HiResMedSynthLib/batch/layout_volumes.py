"""Volumes with label maps as NIfTI, in the source's own values and depth: nnU-Net's raw folder (version 2) and MONAI.

The label is 1 where a lesion is, whatever its type; single pictures are volumes of one slice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from HiResMedSynthLib.batch.layout import (
    Entries,
    Entry,
    LabelledImage,
    MadeCase,
    facts_of,
    whole_text,
    write_joined,
    write_patients,
)
from HiResMedSynthLib.batch.spec import Output, Side
from HiResMedSynthLib.export.image_file import MARK
from HiResMedSynthLib.write_volume import write_nifti

LABELS = {"background": 0, "lesion": 1}
MONAI_LISTS: dict[Side, str] = {"train": "training", "val": "validation", "test": "testing"}


def _write_pair(one: LabelledImage, image: Path, label: Path) -> None:
    for path in (image, label):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(np.asarray(one.image.pixels), one.image, image, composed=one.kind == "lesions")
    write_nifti((one.mask > 0).astype(np.uint8), one.image, label)


def _channel(made: MadeCase) -> str:
    """nnU-Net normalises a channel named CT by the values of its foreground, others each by itself."""
    domain = made.composition.case.background.domain  # files other than DICOM tell no modality
    return {"lung-ct": "CT", "mr": "MR"}.get(domain, "radiograph")


class NnUnet:
    """nnunet/Dataset001_NAME/ with imagesTr, labelsTr (train and val), imagesTs, labelsTs (test) and its two lists."""

    def __init__(self, output: Output) -> None:
        self.folder = f"nnunet/Dataset001_{output.name}"

    def write(self, made: MadeCase, root: Path) -> list[Entry]:
        """One entry an image."""
        entries = []
        for one in made.images():
            entry = {**facts_of(one), "part": "Ts" if made.side == "test" else "Tr", "channel": _channel(made)}
            image, label = self.paths(entry)
            _write_pair(one, root / image, root / label)
            entries.append(entry)
        return entries

    def paths(self, entry: Entry) -> list[str]:
        """Image and label map."""
        name, part = entry["image"], entry["part"]
        return [f"{self.folder}/images{part}/{name}_0000.nii.gz", f"{self.folder}/labels{part}/{name}.nii.gz"]

    def finish(self, entries: Entries, out: Path, output: Output) -> None:
        """Writes dataset.json, and splits_final.json: one fold, of our own train and val."""
        names: dict[Side, list[str]] = {"train": [], "val": [], "test": []}
        channels = set()
        for side, entry in entries():
            names[side].append(entry["image"])
            channels.add(entry["channel"])
        document = {
            "channel_names": {"0": " and ".join(sorted(channels)) or "radiograph"},
            "labels": LABELS,
            "numTraining": len(names["train"]) + len(names["val"]),
            "file_ending": ".nii.gz",
            "name": output.name,
            "description": MARK,
        }
        folder = out / self.folder
        files = (("/".join(self.paths(entry)[0].split("/")[2:]), entry) for _, entry in entries())
        write_patients(folder, files)
        for part in ("imagesTr", "labelsTr"):  # nnU-Net wants them even where all cases are for the test
            (folder / part).mkdir(parents=True, exist_ok=True)
        whole_text(folder / "dataset.json", json.dumps(document, indent=1) + "\n")
        if names["val"]:
            splits = [{"train": names["train"], "val": names["val"]}]
            whole_text(folder / "splits_final.json", json.dumps(splits, indent=1) + "\n")


class Monai:
    """monai/SIDE/NAME.nii.gz, NAME_label.nii.gz and monai/datalist.json."""

    def write(self, made: MadeCase, root: Path) -> list[Entry]:
        """One entry an image."""
        entries = []
        for one in made.images():
            entry = {**facts_of(one), "side": made.side}
            image, label = self.paths(entry)
            _write_pair(one, root / image, root / label)
            entries.append(entry)
        return entries

    def paths(self, entry: Entry) -> list[str]:
        """Image and label map."""
        place = f"monai/{entry['side']}/{entry['image']}"
        return [f"{place}.nii.gz", f"{place}_label.nii.gz"]

    def finish(self, entries: Entries, out: Path, output: Output) -> None:
        """Writes datalist.json, as `monai.data.load_decathlon_datalist` reads it; validation is fold 0 too."""
        aside = out / "monai" / ".datalist.json.part"
        with aside.open("w", encoding="utf-8") as stream:
            head = {"name": output.name, "description": MARK, "labels": {str(v): k for k, v in LABELS.items()}}
            stream.write(json.dumps(head)[:-1])
            for side, key in MONAI_LISTS.items():
                stream.write(f',\n"{key}": [\n')
                write_joined(stream, self._lines(entries, side))
                stream.write("\n]")
            stream.write("}\n")
        aside.replace(out / "monai" / "datalist.json")

    def _lines(self, entries: Entries, side: Side) -> Iterator[Entry]:
        for of, entry in entries():
            if of == side:
                image, label = (path.removeprefix("monai/") for path in self.paths(entry))
                yield {"image": image, "label": label}
