"""What a made image says of itself: that it was kept though it is a near copy of a training film."""

from __future__ import annotations

from pathlib import Path

from HiResMedSynthLib.errors import SettingsError

NEAR_COPY = "kept though it is near a training film"  # in the header's words: DICOM, NRRD and PNG alike
ACCEPTED = "the background is a near copy of a film that its model learned from: accepted by the user"
NEAR_COPY_REFUSED = "this background is a near copy of a film that its model learned from: it may show a real patient"
HEAD_BYTES = 64 * 2**10


def is_near_copy(background: Path) -> bool:
    """Whether a file, or any file of a folder that is read as one image, says that it is a near copy."""
    files = [background]
    if background.is_dir():
        inside = [*background.iterdir(), *background.glob("*/*")]
        files = [path for path in inside if path.is_file() and not path.name.startswith(".")]
    return any(NEAR_COPY.encode() in _head(path) for path in files)


def check_background(background: Path, *, accepted: bool) -> tuple[str, ...]:
    """What the case's log has to say of it; nothing for most backgrounds.

    Raises:
        SettingsError: it is a near copy, and the user didn't accept that.
    """
    if not is_near_copy(background):
        return ()
    if not accepted:
        raise SettingsError(
            NEAR_COPY_REFUSED,
            where=background,
            remedy="Make another (generate draws near copies again), or add --accept-near-copy; case.json records it.",
        )
    return (ACCEPTED,)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return b""  # reading the image says what is wrong
