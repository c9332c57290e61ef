"""Style sheets and scripts: served under the hash of their content, loaded by their hash only."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec import Struct

from tongbao.surfaces.page_kit.replies import Reply, file_reply

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
KIT: Final = Path(__file__).parent / "static"


class Asset(Struct, frozen=True):
    """One file as a page names it."""

    href: str
    integrity: str
    content: bytes
    content_type: str


class Assets:
    """The files of one set of pages, read once at the start."""

    def __init__(self, prefix: str, folders: Iterable[Path]) -> None:
        self.prefix = prefix
        self._by_name: dict[str, Asset] = {}
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.suffix in _TYPES:
                    self._add(path)
        self._by_href = {asset.href: asset for asset in self._by_name.values()}

    def __getitem__(self, name: str) -> Asset:
        """Return a file by its name; a missing one is a bug."""
        return self._by_name[name]

    def find(self, path: str) -> Reply | None:
        """Return the file at an address; it never changes, so browsers keep it for a year."""
        asset = self._by_href.get(path)
        if asset is None:
            return None
        kept = ("cache-control", "public, max-age=31536000, immutable")
        return file_reply(asset.content, asset.content_type).also(kept)

    def _add(self, path: Path) -> None:
        content = path.read_bytes()
        digest = hashlib.sha384(content).digest()
        self._by_name[path.name] = Asset(
            href=f"{self.prefix}/{digest.hex()[:16]}/{path.name}",
            integrity=f"sha384-{b64encode(digest).decode()}",
            content=content,
            content_type=_TYPES[path.suffix],
        )
