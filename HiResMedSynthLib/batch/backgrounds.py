"""The backgrounds that a spec names: files, series, slices and films to be made, and whose they are.

Whose an image is stays in this process as a hash; nothing that is written holds it, nor a path of a source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from HiResMedSynthLib.annotations_patients import PATIENTS_FILE, Told, patient_of, read_patients
from HiResMedSynthLib.batch.spec import Backgrounds
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.privacy_record import NEAR_COPY_REFUSED, is_near_copy
from HiResMedSynthLib.read import PICTURE_MAGIC, VOLUME_SUFFIXES, read_image, with_assumed_spacing
from HiResMedSynthLib.read_dicom import looks_like_dicom, series_of
from HiResMedSynthLib.read_quietly import quietly
from HiResMedSynthLib.synthetic_words import COMPOSED_REFUSED, HOLDS_COMPOSED

NRRD_MAGIC = (b"NRRD", b"ObjectType")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Background:
    """One picture or volume that cases are put into.

    Args:
        patient: hash of whose it is: of the Patient ID, or of the pixels where nobody knows, so that one picture under
            two names has one owner.
        name: as the spec's folder knows it, so that a data set is the same wherever that folder lies.
        path: file or folder; None: a film to be made.
        series: UID of the series in a folder.
        slice_index: the one slice of it that is taken; None: all.
        spacing_mm: (between rows, between columns) where the spec or patients.csv tells it, for files that don't.
        made_seed: of a film to be made.
    """

    patient: str
    name: str
    path: Path | None = None
    series: str | None = None
    slice_index: int | None = None
    spacing_mm: tuple[float, float] | None = None
    made_seed: int | None = None

    @property
    def source(self) -> tuple[Path | None, str | None, int | None]:
        """What is read or made as a whole: slices of one volume share it."""
        return self.path, self.series, self.made_seed


def identity_hash(kind: str, name: str) -> str:
    """A hash that stands for a patient (kind "patient") or for something that has no patient's name."""
    return hashlib.sha256(f"{kind}\0{name}".encode()).hexdigest()[:32]


def find_backgrounds(wanted: Backgrounds, folder: Path, *, progress: Progress | None = None) -> tuple[Background, ...]:
    """All backgrounds that a spec names, always in the same order.

    Args:
        wanted: of the spec.
        folder: of the spec; its paths are relative to it, and patients.csv lies there.
        progress: called with (files done, files); where nothing else tells the owner of a file all of it is read.

    Raises:
        SettingsError: a pattern that names nothing.
        ReadError: a file that is no image, or a patients.csv that is damaged or leaves an image of unknown owner out.
    """
    folder = folder.absolute()
    places = dict.fromkeys(place for pattern in wanted.files for place in _matches(pattern, folder))
    held = _each_once({place: [place] if place.is_file() else files_of(place) for place in places})
    names = [_name(one, folder) for place, files in held.items() for one in (place, *files)]
    owners = _Owners(folder=folder, table=read_patients(folder, list(dict.fromkeys(names))))
    found: list[Background] = []
    tell = progress or (lambda _done, _total: None)
    done, total = 0, sum(len(files) for files in held.values())
    for place, files in held.items():
        tell(done, total)  # the headers of a large folder take long too
        for passed, backgrounds in _in_place(place, files, wanted, owners):
            found += backgrounds
            done += passed
            tell(done, total)
    found = owners.with_copies_named(found)
    if wanted.generated is not None:
        first = wanted.generated.seed
        found += [
            Background(patient=identity_hash("made", str(seed)), name=f"made {seed}", made_seed=seed)
            for seed in range(first, first + wanted.generated.count)
        ]
    return tuple(found)


def read_source(background: Background) -> MedicalImage:
    """The image that a background is, or is a slice of.

    Raises:
        ReadError, GeometryError: it can't be read.
        SettingsError: it is a made film that was kept though it is near to a training film, or holds composed lesions.
    """
    assert background.path is not None
    if is_near_copy(background.path):
        raise SettingsError(NEAR_COPY_REFUSED, where=background.path, remedy="Leave it out of the spec.")
    image = read_image(background.path, series=background.series)
    if HOLDS_COMPOSED in image.oddities:
        raise SettingsError(
            COMPOSED_REFUSED,
            where=background.path,
            remedy="Leave it out of the spec, or name the background of that case (dicom_background).",
        )
    if background.spacing_mm is not None and image.pixel_spacing_mm is None:
        image = with_assumed_spacing(image, background.spacing_mm)
    return image


def _name(place: Path, folder: Path) -> str:
    return (place.relative_to(folder) if place.is_relative_to(folder) else place).as_posix()


def _matches(pattern: str, folder: Path) -> list[Path]:
    """Files and folders of a pattern, sorted; hidden ones are passed over."""
    path = Path(pattern).expanduser()
    base = Path(path.anchor) if path.is_absolute() else folder
    try:
        wild = any(sign in pattern for sign in "*?[") and not (base / path).exists()  # a name may hold such signs
        found = sorted(base.glob(str(path.relative_to(path.anchor)))) if wild else [base / path]
    except (ValueError, NotImplementedError) as error:
        raise SettingsError(f"backgrounds.files: '{pattern}' is no pattern", remedy="Use * and **.") from error
    found = [place for place in found if place.exists() and not place.name.startswith(".")]
    if not found:
        raise SettingsError(
            f"backgrounds.files: '{pattern}' names nothing", where=folder,
            remedy="Correct it; paths are relative to the folder of the spec.",
        )  # fmt: skip
    return [Path(*place.absolute().parts) for place in found]


def _each_once(held: dict[Path, list[Path]]) -> dict[Path, list[Path]]:
    """The places with each file in one: in the innermost folder that holds it, else by itself (`**` names all)."""
    taken: set[Path] = set()
    left: dict[Path, list[Path]] = {}
    for place in sorted(held, key=lambda place: (place.is_file(), -len(place.parts))):
        left[place] = [file for file in held[place] if file not in taken]
        taken.update(left[place])
    return {
        place: left[place]
        for place in held
        if left[place] == held[place] or any(any(_begins(file)) for file in left[place])  # else only a reader's notes
    }


@dataclass(frozen=True, kw_only=True)
class _Owners:
    """Whose images are: as patients.csv in the folder of the spec says, else DICOM's Patient ID."""

    folder: Path
    table: dict[str, Told] | None
    # (file or folder, series) that is read -> (whose it is, file with its header)
    named: dict[tuple[Path, str | None], tuple[str, Path]] = field(default_factory=dict)
    nameless: dict[str, tuple[int, int]] = field(default_factory=dict)  # hash of its pixels -> rows and columns

    @cached_property
    def _names_patients(self) -> bool:
        """Whether there is a table for more than spacings; one that names none of our images is a mistaken one."""
        return self.table is not None and (not self.table or any(line.patient for line in self.table.values()))

    def told(self, file: Path, place: Path) -> Told:
        """What the table says of a file, else of the folder that the spec names."""
        lines = [(self.table or {}).get(_name(one, self.folder)) for one in (file, place)]
        return next((line for line in lines if line is not None), Told())

    def hash_of(self, file: Path, told: Told, *, dicom: bool, place: Path, series: str | None = None) -> str:
        """Stands for the patient; where nobody knows whose it is, for the pixels.

        Args:
            file: whose table line or header may tell the patient.
            told: by the table.
            dicom: whether it is DICOM.
            place, series: what `read_image` reads of it.

        Raises:
            ReadError: there is a table of patients, and it leaves this image out.
        """
        patient = told.patient or (patient_of(file.parent, file.name) if dicom else "")
        if patient:
            whose = identity_hash("patient", patient)
            self.named[(place, series) if series else (file, None)] = whose, file
            return whose
        if self._names_patients:
            raise ReadError(
                f"{PATIENTS_FILE} leaves this image out, so nobody knows whose it is",
                where=_name(file, self.folder),
                remedy="Add a line for it, or for its folder as the spec names it; names are relative to the spec.",
            )
        try:
            image = read_image(place, series=series)
        except (HiResMedSynthError, OSError):  # told when a case is to be put into it
            return identity_hash("unreadable", f"{_name(place, self.folder)}\0{series}")
        whose = identity_hash("pixels", image.pixel_sha256)
        self.nameless[whose] = image.rows, image.columns
        return whose

    def with_copies_named(self, found: list[Background]) -> list[Background]:
        """The same, images of nobody given to the patient who has one of the very same pixels."""
        owner: dict[str, str] = {}
        for (place, series), (whose, file) in self.named.items() if self.nameless else ():
            try:
                if not _may_equal(file, set(self.nameless.values())):
                    continue
                pixels = identity_hash("pixels", read_image(place, series=series).pixel_sha256)
            except (HiResMedSynthError, OSError):
                continue
            if pixels in self.nameless:
                owner.setdefault(pixels, whose)
        return [replace(one, patient=owner.get(one.patient, one.patient)) for one in found]


def _in_place(
    place: Path, files: Sequence[Path], wanted: Backgrounds, owners: _Owners
) -> Iterator[tuple[int, list[Background]]]:
    """(files passed, backgrounds in them) of a file, of a folder of DICOM series, or of a folder of images."""
    if place.is_file():
        yield 1, _in_file(place, place, wanted, owners)
        return
    dicom = [file for file in files if _begins(file)[1]]
    if not dicom:
        images = [file for file in files if _begins(file)[0]]
        if not images:
            raise ReadError("the folder holds no image", where=place, remedy="Correct backgrounds.files in the spec.")
        yield len(files) - len(images), []
        for file in images:
            yield 1, _in_file(file, place, wanted, owners)
        return
    name = _name(place, owners.folder)
    series = series_of(dicom, where=place)
    yield len(files) - sum(len(one.files) for one in series.values()), []
    for uid, one in series.items():
        if one.radiographs and len(one.files) > 1:  # emptied or shared UIDs put films of many patients together
            for file in one.files:
                told = owners.told(file, place)
                # without a name two films of a real series may be one patient's front and side view
                whose = owners.hash_of(file, told, dicom=True, place=one.files[0] if uid else file)
                yield 1, _cut(file, _name(file, owners.folder), None, 1, whose, wanted, told)
            continue
        told = owners.told(one.files[0], place)
        whose = owners.hash_of(one.files[0], told, dicom=True, place=place, series=uid)
        of_series = uid if len(series) > 1 else None
        yield len(one.files), _cut(place, name, of_series, one.slices, whose, wanted, told)


def _in_file(file: Path, place: Path, wanted: Backgrounds, owners: _Owners) -> list[Background]:
    image, dicom = _begins(file)
    if not (image or dicom):
        raise ReadError("this is not a medical image", where=file, remedy="Correct backgrounds.files in the spec.")
    name, told = _name(file, owners.folder), owners.told(file, place)
    whose = owners.hash_of(file, told, dicom=dicom, place=file)
    slices = 1
    if wanted.slices == "each":
        slices = next(iter(series_of([file], where=file).values())).slices if dicom else _slices_in(file)
    return _cut(file, name, None, slices, whose, wanted, told)


def _cut(
    path: Path, name: str, series: str | None, slices: int, whose: str, wanted: Backgrounds, told: Told
) -> list[Background]:
    """The whole, or each of its slices."""
    spacing = told.spacing_mm or wanted.spacing
    return [
        Background(patient=whose, name=name, path=path, series=series, slice_index=index, spacing_mm=spacing)
        for index in (range(slices) if wanted.slices == "each" and slices > 1 else [None])
    ]


def _slices_in(file: Path) -> int:
    with file.open("rb") as stream:
        picture = stream.read(132).startswith(PICTURE_MAGIC)
    return 1 if picture else read_image(file).slices  # the reader refuses pictures of several pages


def files_of(folder: Path) -> list[Path]:
    """What `read_image` looks at: the folder's files, and where none is DICOM those one level below too."""
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "DICOMDIR")
    files = [path for path in inside if path.is_file()]
    if not any(_begins(path)[1] for path in files):
        below = (sorted(path.iterdir()) for path in inside if path.is_dir())
        files += [path for paths in below for path in paths if path.is_file() and not path.name.startswith(".")]
    return files


def _may_equal(file: Path, sizes: set[tuple[int, int]]) -> bool:
    """Whether the image in a file has one of those numbers of rows and columns, or doesn't tell by its header."""
    if not _begins(file)[1]:
        return True
    import pydicom

    with quietly():
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True)
    return (header.get("Rows"), header.get("Columns")) in sizes


def _begins(file: Path) -> tuple[bool, bool]:
    """Whether a file is an image that is no DICOM, and whether it is DICOM."""
    with file.open("rb") as stream:
        head = stream.read(132)
    dicom = looks_like_dicom(head)
    image = head.startswith((*PICTURE_MAGIC, *NRRD_MAGIC)) or file.name.lower().endswith(VOLUME_SUFFIXES)
    return image and not dicom, dicom
