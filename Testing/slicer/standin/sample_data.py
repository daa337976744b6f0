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
        sources[sampleName] = {"category": category, "load": customDownloader, "thumbnail": thumbnailFileName}

    def downloadSample(self, sampleName: str) -> Any:
        return sources[sampleName]["load"](None)
