"""BackendClient: all that a panel needs of the backend; numpy and requests only (Slicer brings both)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from numpy.typing import NDArray

from HiResMedSynthLib.aside import new_name_beside
from HiResMedSynthLib.service.protocol import (
    ARRAYS_TYPE,
    BYTES_TYPE,
    JSON_TYPE,
    LARGEST_BODY,
    PROTOCOL_VERSION,
    ErrorInfo,
    ImageHeader,
    JobKind,
    JobStatus,
    image_name,
    packed_stream,
    unpack_arrays,
)

CONNECT_S, ANSWER_S = 5.0, 60.0
POLL_S = (0.004, 0.1)  # between two questions: short at first, for a preview that follows the mouse
LARGEST_EXPORT = 16 * 2**30  # bytes of an export, unpacked
MOST_EXPORT_FILES = 100_000
Progress = Callable[[JobStatus], None]


class BackendError(Exception):
    """The backend refused, failed, or can't be reached; `info` is what to tell the user."""

    def __init__(self, info: ErrorInfo) -> None:
        self.info = info
        place = f" [{info.where}]" if info.where else ""
        super().__init__(f"{info.what}{place}. {info.remedy}")


class SilentBackendError(BackendError):
    """The backend can't be reached, or broke off its answer."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(
            ErrorInfo(
                what=f"the backend doesn't answer ({type(problem).__name__})",
                remedy="It is started again at the next action; if that fails, look at its log.",
            )
        )


class BackendClient:
    """Talks to one backend.

    In a script::

        image = read_image("ct_folder")
        client = BackendClient("http://127.0.0.1:PORT", token)
        name = client.send_image(image.pixels, header_of(image))  # HiResMedSynthLib.service.messages.header_of
        wanted = {"settings": {"requests": [{"size_mm": [8, 10]}]}, "seed": 1}
        job = client.submit("compose", image=name, parameters=wanted)
        client.wait(job)
        arrays, document = client.result(job)  # "1.pixels", "1.alpha", "lesions"; case, corners, boxes

    The parameters of each kind of job are the dataclasses in tasks.py, lesion_tasks.py, background_tasks.py,
    annotation_tasks.py and model_tasks.py.

    Args:
        url: "http://127.0.0.1:PORT", or the https address of a GPU server.
        token: the secret that the backend was started with.
        verify: certificate file for a server of your own (requests' `verify`).
    """

    def __init__(self, url: str, token: str, *, verify: bool | str = True) -> None:
        import requests

        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # a hospital's proxy must never see loopback traffic
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = verify

    def health(self) -> dict[str, Any]:
        """Versions, device, memory and what is loaded."""
        try:
            document = self._request("GET", "/health").json()
        except ValueError:
            document = None
        if not isinstance(document, dict) or document.get("protocol") != PROTOCOL_VERSION:
            what = "what answers at this address is no backend of this version of HiResMedSynth"
            raise BackendError(ErrorInfo(what=what, remedy="Check the address, or update both ends."))
        return document

    def send_image(self, pixels: NDArray[Any], header: ImageHeader, *, name: str | None = None) -> str:
        """The name under which the backend holds the image; sends it only where the backend doesn't hold it yet.

        `name`: what an earlier call with the same image returned, which saves hashing it again.
        """
        document = plain_header(header)
        name = name or image_name(pixels, document)
        if self._request("GET", f"/images/{name}", missing_is_fine=True).status_code == 404:
            body = packed_stream({"pixels": pixels}, document)
            self._request("PUT", f"/images/{name}", data=body, content_type=ARRAYS_TYPE)
        return name

    def send_bytes(self, content: bytes) -> str:
        """The name (sha256) under which the backend holds some bytes, lesions.safetensors for example."""
        name = hashlib.sha256(content).hexdigest()
        self._request("PUT", f"/blobs/{name}", data=content, content_type=BYTES_TYPE)
        return name

    def send_folder(self, folder: Path) -> str:
        """The name under which the backend holds an annotation folder, as a zip: its tables, images and masks only.

        Raises:
            BackendError: the folder holds no COCO table, or more than may be sent at once.
        """
        tables = [file for file in sorted(folder.glob("*.json")) if file.is_file() and not file.is_symlink()]
        named = {name for table in tables for name in _named_images(table)}
        if not named:
            what = "this folder holds no annotations_coco.json that names images"
            raise BackendError(ErrorInfo(what=what, where=str(folder), remedy="Choose the folder that was saved."))
        masks = {f"masks/{PurePosixPath(name).name}" for name in named}
        inside = [folder / name for name in sorted({*named, *(f"images/{name}" for name in named), *masks})]
        files = [*tables, *(file for file in inside if file.is_file() and not file.is_symlink())]
        if sum(file.stat().st_size for file in files) > LARGEST_BODY:
            what = "the folder is too large to be sent at once"
            raise BackendError(ErrorInfo(what=what, where=str(folder), remedy="Split it into several."))
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for file in dict.fromkeys(files):
                archive.write(file, file.relative_to(folder).as_posix())
        return self.send_bytes(stream.getvalue())

    def submit(self, kind: JobKind, *, image: str | None = None, parameters: dict[str, Any] | None = None) -> str:
        """Id of a new job."""
        body = json.dumps({"kind": kind, "image": image, "parameters": parameters or {}})
        return str(self._request("POST", "/jobs", data=body.encode(), content_type=JSON_TYPE).json()["id"])

    def status(self, job: str) -> JobStatus:
        """How far a job is."""
        return JobStatus.from_json(self._request("GET", f"/jobs/{job}").json())

    def cancel(self, job: str) -> None:
        """Asks a job to stop; it does at its next step. Images that `generate` has made by then are its result."""
        self._request("DELETE", f"/jobs/{job}")

    def wait(self, job: str, *, progress: Progress | None = None) -> JobStatus:
        """The final status of a job; raises BackendError where it failed or was cancelled."""
        pause = POLL_S[0]
        while True:
            status = self.status(job)
            if progress is not None:
                progress(status)
            if status.state == "done":
                return status
            if status.error is not None:
                raise BackendError(status.error)
            if status.finished:
                raise BackendError(ErrorInfo(what="the job was cancelled", remedy="Start it again if you need it."))
            time.sleep(pause)
            pause = min(1.3 * pause, POLL_S[1])

    def result(self, job: str) -> tuple[dict[str, NDArray[Any]], Any]:
        """(arrays, document) of a job that is done."""
        return unpack_arrays(self._request("GET", f"/jobs/{job}/result").content)

    def fetch_export(self, job: str, out: Path) -> None:
        """Unpacks the export of a job into the new folder `out`, all or nothing."""
        import requests

        with tempfile.TemporaryFile() as spool:
            try:
                for chunk in self._request("GET", f"/jobs/{job}/result", stream=True).iter_content(1 << 20):
                    spool.write(chunk)
            except requests.RequestException as error:
                raise SilentBackendError(error) from error
            except OSError as error:
                raise _unwritable(error, Path(tempfile.gettempdir())) from error
            spool.seek(0)
            unpack_folder(spool, out)

    def _request(
        self,
        method: str,
        path: str,
        *,
        data: bytes | io.BytesIO | None = None,
        content_type: str | None = None,
        missing_is_fine: bool = False,
        stream: bool = False,
    ) -> Any:
        import requests

        headers = {"Content-Type": content_type} if content_type else {}
        try:
            answer = self._session.request(
                method,
                self._url + path,
                data=data,
                headers=headers,
                timeout=(CONNECT_S, ANSWER_S),
                stream=stream,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise SilentBackendError(error) from error
        if answer.ok or (missing_is_fine and answer.status_code == 404):
            return answer
        try:
            raise BackendError(ErrorInfo(**answer.json()["error"]))
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(
                ErrorInfo(what=f"the backend refused ({answer.status_code})", remedy="Look at the backend's log.")
            ) from error


def _named_images(table: Path) -> list[str]:
    """Names of images inside the folder that a COCO table names."""
    try:
        document = json.loads(table.read_text(encoding="utf-8"))
        own = document.get("hiresmedsynth") or {}
        names = [str(image["file_name"]) for image in [*document["images"], *own.get("volumes", [])]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    paths = [PurePosixPath(name) for name in names]
    return [str(p) for p in paths if not p.is_absolute() and ".." not in p.parts and "\\" not in str(p)]


def plain_header(header: ImageHeader) -> dict[str, Any]:
    """The header as it stands in JSON (tuples become lists)."""
    document = json.loads(json.dumps(dataclasses.asdict(header)))
    assert isinstance(document, dict)
    return document


def unpack_folder(stream: Any, out: Path) -> None:
    """Unpacks a zip into the new folder `out`; refuses names that lead elsewhere, links, and more than it should hold.

    Raises:
        BackendError: an unsafe or damaged archive, or `out` exists.
    """
    if out.exists():
        raise BackendError(ErrorInfo(what="the output already exists", where=str(out), remedy="Choose another folder."))
    aside = new_name_beside(out)
    try:
        aside.mkdir(parents=True)
        with zipfile.ZipFile(stream) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_EXPORT_FILES or sum(entry.file_size for entry in entries) > LARGEST_EXPORT:
                raise _unsafe("it is too large")
            for entry in entries:
                _check_name(entry)
                target = aside.joinpath(*PurePosixPath(entry.filename).parts)
                if entry.is_dir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
        aside.rename(out)
    except OSError as error:
        raise _unwritable(error, out) from error
    except (zipfile.BadZipFile, ValueError, RuntimeError) as error:
        raise _unsafe(f"it can't be unpacked: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _unwritable(error: OSError, where: Path) -> BackendError:
    what = f"the export can't be written here ({error.strerror or type(error).__name__})"
    remedy = "Choose a disk with space, that you may write; nothing was left behind."
    return BackendError(ErrorInfo(what=what, where=str(where), remedy=remedy))


def _check_name(entry: zipfile.ZipInfo) -> None:
    path = PurePosixPath(entry.filename)
    linked = stat.S_ISLNK(entry.external_attr >> 16)
    strange = any(part in ("..", "") or ":" in part or "\\" in part or "\0" in part for part in path.parts)
    if path.is_absolute() or linked or strange or not path.parts:
        raise _unsafe("a file in it leads out of its folder")


def _unsafe(why: str) -> BackendError:
    return BackendError(ErrorInfo(what=f"the export was refused: {why}", remedy="Is this your own backend? Try again."))
