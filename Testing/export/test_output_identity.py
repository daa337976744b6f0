"""UIDs and dates decided beforehand: the same case and identity give the same bytes, another seed other UIDs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.image import MedicalImage
from Testing.export.cases import composition_in, ct_image, film_image

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("image", [ct_image(), film_image()], ids=["CT", "film"])
def test_the_same_identity_gives_the_same_bytes_at_any_time(image: MedicalImage, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        identity = OutputIdentity(seed="data set 1, case 5", moment=MOMENT)
        export(composition_in(image, lesions=2), tmp_path / name, pair=True, identity=identity)
        written.append(files_in(tmp_path / name))
    assert written[0] == written[1]


def test_another_seed_shares_no_uid_and_every_date_is_the_given_one(tmp_path: Path) -> None:
    drawn: list[set[str]] = []
    for seed in ("5", "6"):
        export(composition_in(ct_image()), tmp_path / seed, identity=OutputIdentity(seed=seed, moment=MOMENT))
        uids: set[str] = set()
        for file in (tmp_path / seed).rglob("*.dcm"):
            data = pydicom.dcmread(file)
            assert data.TimezoneOffsetFromUTC == "+0000"  # or an archive shows the hour of another place
            for element in data.iterall():
                if element.VR == "UI" and not str(element.keyword).endswith("ClassUID"):
                    uids.add(str(element.value))
                if element.VR in ("DA", "DT") and element.value:
                    assert str(element.value).startswith("20260102"), element
                if element.VR == "TM" and element.value:
                    assert str(element.value).startswith("030405"), element
        drawn.append(uids)
    assert not drawn[0] & drawn[1]
