"""The raw files below a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from concept_depth.errors import InputError
from concept_depth.files import exists


class Below:
    """The files below a folder, found by their name or the end of their path, upper or lower case alike."""

    def __init__(self, folder: Path) -> None:
        """List the folder once.

        Args:
            folder: where to look, at any depth; hidden folders are left out.

        Raises:
            InputError: there is no such folder.
        """
        if not exists(folder, Path.is_dir):
            raise InputError(f"there is no folder {folder}; give the folder that holds the raw files as data_dir")
        self.folder = folder
        self._by_name: dict[str, list[Path]] = {}
        seen: set[str] = set()
        for root, folders, names in os.walk(folder, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = os.path.realpath(root)
            if place in seen:  # a link that leads back up, or to a folder that is listed already
                folders[:] = []
                continue
            seen.add(place)
            for name in sorted(names):
                self._by_name.setdefault(name.casefold(), []).append(Path(root, name))

    def find(self, endings: Sequence[str]) -> list[Path]:
        """Files whose path ends with one of `endings` ("cities.csv", "navigate/task.json"), the best first."""
        found = []
        for ending in endings:
            parts = tuple(part.casefold() for part in Path(ending).parts)
            for path in self._by_name.get(parts[-1], ()):
                if tuple(part.casefold() for part in path.parts[-len(parts) :]) == parts:
                    found.append(path)
        return found
