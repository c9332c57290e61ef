"""A shelf in a folder: a file per blob, moved into its place when it is whole."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

from tongbao.infra.blobs.model import BlobNotFound, BlobStoreUnavailable

_SUFFIX: Final = ".blob"


class FolderShelf:
    """Keeps blobs below a folder that only this user can read. Back it up with the database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, name: str, path: Path) -> None:
        """Move a file into its place, and make its name outlive a power cut.

        Raises:
            BlobStoreUnavailable
        """
        await _in_thread(self._keep, name, path)

    async def fetch(self, name: str, path: Path) -> None:
        """Link or copy a file to ``path``.

        Raises:
            BlobNotFound, BlobStoreUnavailable
        """
        await _in_thread(self._fetch, name, path)

    async def remove(self, name: str) -> None:
        """Forget a file; there may be none.

        Raises:
            BlobStoreUnavailable
        """
        await _in_thread(self._remove, name)

    async def close(self) -> None:
        """Nothing is open."""

    def _place(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _keep(self, name: str, path: Path) -> None:
        place = self._place(name)
        made = make_private(place.parent)
        try:
            path.replace(place)
        except OSError:  # the file on its way lies on another file system
            near = place.with_name(f"{uuid4().hex}.half")
            shutil.copyfile(path, near)
            _sync(near)
            near.replace(place)
        for each in {place.parent, *(each.parent for each in made)}:
            _sync(each)

    def _fetch(self, name: str, path: Path) -> None:
        try:
            path.hardlink_to(self._place(name))
        except FileNotFoundError:
            raise BlobNotFound(blob=name) from None
        except OSError:
            shutil.copyfile(self._place(name), path)

    def _remove(self, name: str) -> None:
        place = self._place(name)
        place.unlink(missing_ok=True)
        if place.parent.is_dir():
            _sync(place.parent)


def make_private(folder: Path) -> list[Path]:
    """Make a folder and those above it that are missing, for this user's eyes; return them."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True, mode=0o700)
    return missing


async def _in_thread(work: Callable[..., None], *args: object) -> None:
    try:
        await asyncio.to_thread(work, *args)
    except OSError as failure:
        raise BlobStoreUnavailable(reason=type(failure).__name__) from failure


def _sync(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
