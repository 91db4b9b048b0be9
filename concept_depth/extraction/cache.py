"""The cache as a whole: its entries listed, verified and pruned, whoever else writes to it meanwhile.

What one entry holds is `store`'s. A folder or file that may not be read is named as such, and hides no other.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_depth.errors import InputError
from concept_depth.extraction.store import FOLDER, Damaged, Plan, Store, plan_in
from concept_depth.files import local_path, reason_of

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Entry:
    """One entry of a cache, as `concept-depth cache` lists it.

    Args:
        key: name of its folder.
        concept, model, site, position: what it holds.
        examples: number of examples.
        megabytes: size on disk.
        state: "complete", "partial", "damaged" (only `verify_cache` looks into shards), or "unreadable" (another
            user's).
        damaged: names of damaged files.
        days: days since it was last used.
    """

    key: str
    concept: str
    model: str
    site: str
    position: str
    examples: int
    megabytes: float
    state: str
    damaged: tuple[str, ...]
    days: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def list_cache(cache_dir: str | Path) -> list[Entry]:
    """The entries of a cache, the last used first."""
    return _entries(cache_dir, verify=False)


def verify_cache(cache_dir: str | Path) -> list[Entry]:
    """The entries of a cache, with every checksum looked at."""
    return _entries(cache_dir, verify=True)


def prune_cache(cache_dir: str | Path, *, days: float) -> list[str]:
    """Delete entries that were not used for so many days; gives their keys.

    Raises:
        InputError: some of them could not be deleted; the others are gone.
    """
    removed, kept = [], []
    for entry in list_cache(cache_dir):
        if entry.days >= days:
            folder = local_path(cache_dir) / FOLDER / entry.key
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                kept.append(str(folder))
            else:
                removed.append(entry.key)
    if kept:
        raise InputError(
            f"removed {len(removed)} entries, but {len(kept)} could not be deleted: {', '.join(kept[:3])}"
            f"{', …' if len(kept) > 3 else ''}; try again when no run uses them, as a user who may write there"
        )
    return removed


def _entries(cache_dir: str | Path, *, verify: bool) -> list[Entry]:
    root = local_path(cache_dir) / FOLDER
    try:
        folders = [path for path in root.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:  # a ValueError of names with a NUL character
        raise InputError(f"cannot read the cache {root}: {reason_of(error)}; give another cache_dir") from error
    entries = [entry for folder in folders if (entry := _entry(folder, verify=verify)) is not None]
    return sorted(entries, key=lambda entry: (entry.days, entry.key))


def _files_of(folder: Path) -> dict[str, os.stat_result]:
    """The files of an entry, each looked at once: another process may write, replace and remove them meanwhile."""
    found = {}
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found[path.name] = path.stat()
    return found


def _entry(folder: Path, *, verify: bool) -> Entry | None:
    """What a folder of the cache holds; None where another process pruned it meanwhile."""
    path = folder / "plan.json"
    present, plan, damaged, readable, used = {}, Plan([], [], 0, [], {}, {}), [], True, time.time()
    try:
        used = folder.stat().st_mtime
        present = _files_of(folder)
        plan = plan_in(path.read_bytes())
    except FileNotFoundError:
        # A run has just begun, or its entry was pruned under it: whoever goes on with it makes the plan again.
        if not folder.exists():
            return None
    except OSError:  # another user's
        readable = False
    except Damaged:
        damaged.append(path.name)
    store = Store(folder, plan)
    complete = bool(plan.shards)
    for shard in range(len(plan.shards)):
        if store.path(shard).name not in present:
            complete = False
        elif verify:
            try:
                store.verify(shard)
            except Damaged as error:
                # safetensors says "not found" of what it may not open, too.
                if not isinstance(error.__cause__, FileNotFoundError):
                    damaged.append(store.path(shard).name)
                elif store.path(shard).exists():
                    readable = False
                else:
                    complete = False
    about: Mapping[str, Any] = plan.about
    return Entry(
        key=folder.name,
        concept=str(about.get("concept", "?")),
        model=str(about.get("model", "?")),
        site=str(about.get("site", "?")),
        position=str(about.get("position", "?")),
        examples=examples if isinstance(examples := about.get("examples"), int) else 0,
        megabytes=sum(file.st_size for file in present.values()) / 1e6,
        state="damaged" if damaged else "unreadable" if not readable else "complete" if complete else "partial",
        damaged=tuple(damaged),
        days=max(0.0, time.time() - max((file.st_mtime for file in present.values()), default=used)) / 86400,
    )
