"""slicer.i18n (Base/Python/slicer/i18n.py): texts stay as they are, as without a translation file."""

from __future__ import annotations


def tr(text: str, context: str | None = None) -> str:
    return text


def translate(context: str, text: str) -> str:
    return text
