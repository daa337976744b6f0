"""OutputIdentity: the UIDs and dates of an export, new each time or decided beforehand."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(frozen=True, kw_only=True)
class OutputIdentity:
    """Where the UIDs and dates of one export come from; the same identity and case give the same bytes.

    Args:
        seed: any text, the only source of the UIDs: a new random one unless given. Never of a source's header.
        moment: of the synthesis, in UTC: the one date of the export.
    """

    seed: str = field(default_factory=lambda: secrets.token_hex(16))
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    def uid(self, *names: object) -> str:
        """The UID of the object of that name within the export: the same for the same seed and name (PS3.5 B.2)."""
        from pydicom.uid import generate_uid

        return str(generate_uid(entropy_srcs=[self.seed, *map(str, names)]))

    @property
    def date(self) -> str:
        """DICOM DA."""
        return self.moment.strftime("%Y%m%d")

    @property
    def time(self) -> str:
        """DICOM TM."""
        return self.moment.strftime("%H%M%S")
