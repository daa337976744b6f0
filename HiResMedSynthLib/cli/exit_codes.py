"""With what code a command ends where it isn't done; click's own 2 is wrong usage."""

from __future__ import annotations

EXIT_ERROR = 1
EXIT_SOME_FAILED = 3  # the others are whole
EXIT_BUG = 70
EXIT_CANCELLED = 130
