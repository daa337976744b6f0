"""The check of a labelled folder in words, and as one HTML file with pictures of the labels."""

from __future__ import annotations

import base64
import html
from collections import Counter

from HiResMedSynthLib.annotation_check import FolderCheck
from HiResMedSynthLib.annotation_facts import Finding
from HiResMedSynthLib.annotation_needs import trainers_for
from HiResMedSynthLib.annotation_picture import colour_of

MOST_PICTURES = 60
MOST_SHOWN = 20  # findings of one kind in the text
WARNING = "Holds pixels of patients: keep it where such images may lie, and don't send it on."


def as_text(check: FolderCheck) -> str:
    """A readable account, several lines; files are named as they lie in the folder."""
    lines = [f"{name:<11} {value}" for name, value in _summary(check)]
    lines.append(f"{'classes':<11} {'name':<28} {'images':>7} {'marks':>7} {'voxels':>11}")
    for name, counts in check.counts().items():
        lines.append(f"{'':<11} {name:<28} {counts['images']:>7} {counts['marks']:>7} {counts['voxels']:>11}")
    for severity in ("problem", "warning"):
        found = [finding for finding in check.findings if finding.severity == severity]
        lines += [f"{severity:<11} {_sentence(finding, files=True)}" for finding in found[:MOST_SHOWN]]
        if len(found) > MOST_SHOWN:
            lines.append(f"{'':<11} and {len(found) - MOST_SHOWN} more of this kind")
    lines.append(f"{'result':<11} {_result(check)}")
    return "\n".join(lines)


def as_html(check: FolderCheck) -> str:
    """One HTML page with pictures. Images are numbered: it holds patients' pixels, but no name of a patient or file."""
    escape = html.escape
    rows = "".join(f"<tr><th>{escape(name)}<td>{escape(value)}" for name, value in _summary(check))
    names = sorted(set(check.classes.values()))
    classes = "".join(
        f"<tr><td style='background:rgb{colour_of(name, names)}'>&nbsp;&nbsp;<td>{escape(name)}"
        + "".join(f"<td align=right>{value}" for value in counts.values())
        for name, counts in check.counts().items()
    )
    found = "".join(
        f"<li class={finding.severity}><b>{finding.severity}</b>: {escape(_sentence(finding, files=False))}"
        for finding in check.findings
    )
    pictures = "".join(
        f"<figure><img src='data:image/jpeg;base64,{_jpeg(picture)}'><figcaption>image {number}</figcaption></figure>"
        for number, picture in check.pictures
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Check of a labelled folder</title>"
        "<style>body{font:15px sans-serif;margin:2em;max-width:76em}figure{display:inline-block;margin:4px}"
        "th{text-align:left;padding-right:1em}figcaption{font-size:12px}.problem b{color:#b00}.warning b{color:#960}"
        "</style>"
        f"<h1>Check of a labelled folder</h1><p><b>{WARNING}</b><p>{_result(check)}.<table>{rows}</table>"
        f"<h2>Classes</h2><table><tr><th><th>class<th>images<th>marks<th>voxels{classes}</table>"
        f"<h2>Findings</h2><ul>{found or '<li>none'}</ul>"
        f"<h2>Labels</h2><p>{len(check.pictures)} of {check.total} images, evenly chosen; of a volume the slice with "
        f"most labels.<div>{pictures}</div>"
    )


def _summary(check: FolderCheck) -> list[tuple[str, str]]:
    images = check.images
    patients = {one.patient for one in images}
    held = len(check.held_out)
    held_images = sum(one.patient in check.held_out for one in images)
    unlabelled = sum(not one.labelled for one in images)
    deep = sum(one.shape[0] > 1 for one in images)
    unread = check.total - len(images)
    known = [one.spacing_mm for one in images if one.spacing_mm is not None]
    spacing = f"{min(s[1] for s in known):.3g} to {max(s[1] for s in known):.3g} mm" if known else "unknown"
    if known and len(known) < len(images):
        spacing += f", unknown in {len(images) - len(known)}"
    modalities = Counter(one.modality for one in images)
    return [
        ("format", check.format_name),
        ("images", f"{check.total}: {len(images) - deep} pictures, {deep} volumes"
                   + (f", {unread} that can't be used" if unread else "") + f"; {unlabelled} without a label"),
        ("modality", ", ".join(f"{count} {kind}" for kind, count in sorted(modalities.items())) or "none"),
        ("spacing", spacing),
        ("patients", f"{len(patients)}: {len(patients) - held} to learn from, {held} held out ({held_images} images)"),
        ("trainers", _trainers(check)),
    ]  # fmt: skip


def _result(check: FolderCheck) -> str:
    """Whether anything can be trained on the folder."""
    if check.problems:
        return f"{len(check.problems)} problem(s) stop training"
    return "nothing stops training" if trainers_for(check)[0] else "nothing is wrong in it, but no trainer takes it"


def _trainers(check: FolderCheck) -> str:
    """The trainers that take the folder as it is, or why none does."""
    if check.problems:
        return "none before the problems are mended"
    taken, reasons = trainers_for(check)
    return f"python -m Training.NAME: {', '.join(taken)}" if taken else f"none: {' And: '.join(reasons)}"


def _sentence(finding: Finding, *, files: bool) -> str:
    """The finding in words. Without files: only the numbers of images, and nothing quoted from a file's name."""
    where = ""
    if files and finding.where:
        where = f" [{finding.where}]"
    elif finding.images:
        shown = ", ".join(map(str, finding.images[:6])) + (" ..." if len(finding.images) > 6 else "")
        where = f" [image {shown}]"
    return f"{finding.what}{where}. {finding.remedy}".strip()


def _jpeg(picture: object) -> str:
    import cv2
    import numpy as np

    done, data = cv2.imencode(".jpg", np.asarray(picture)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return base64.b64encode(data.tobytes()).decode()
