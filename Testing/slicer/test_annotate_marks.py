"""Marks of the section Annotate: only one that was chosen is changed or deleted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from Testing.slicer.conftest import Workbench


def test_nothing_is_deleted_or_changed_before_a_mark_is_chosen(bench: Workbench) -> None:
    from HiResMedSynthLib.service.client import BackendError  # a reload of the module makes another

    bench.load("film")
    section, node = bench.panel.annotate, bench.studio.parameters.background
    section.widget.collapsed = False
    try:
        section.image.setCurrentNode(node)
        section._image_chosen(None)
        for row, name in ((400, "first"), (450, "second"), (500, "third")):
            section.name.setText(name)
            section.annotations.points_of(node).AddControlPointWorld(*bench.studio.image.world_of((0, row, 340)))
        section.refresh()

        def names() -> list[str]:
            return [mark.facts["class"] for mark in section.annotations.marks_of(node)]

        assert not section.delete.enabled
        assert not section.change.enabled
        section.list.setCurrentRow(1)
        section.name.setText("other")
        bench.click(section.change)
        assert names() == ["first", "other", "third"]
        assert section.list.currentRow == 1, "it is still the chosen one"
        bench.click(section.delete)
        assert names() == ["first", "third"]
        assert not section.delete.enabled, "the next one was not chosen"

        _problem, prepare = section.annotations.sending()
        small = SimpleNamespace(health=lambda: {"memory": {"budget_bytes": 2**20}})
        with pytest.raises(BackendError, match=r"more than the backend may hold \(1 MiB\). Save fewer"):
            prepare(small)
    finally:
        section.widget.collapsed = True
