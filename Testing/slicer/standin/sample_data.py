"""SampleData (Modules/Scripted/SampleData/SampleData.py): registered sources, and loading one by its downloader."""

from __future__ import annotations

from typing import Any

sources: dict[str, dict[str, Any]] = {}


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: object = None,
        fileNames: object = None,
        nodeNames: object = None,
        customDownloader: object = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: object = None,
        checksums: object = None,
        sampleDescription: str | None = None,
    ) -> None:
        assert sampleName is not None
        given = [one if isinstance(one, (list, tuple)) else [one] for one in (uris, fileNames, nodeNames)]
        assert all(isinstance(uri, str) for uri in given[0]), "uris must be texts"
        sources[sampleName] = {"category": category, "load": customDownloader, "thumbnail": thumbnailFileName}
