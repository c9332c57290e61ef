"""The key file: one key per line in base64, as it is or wrapped by a security module.

The first line seals, all lines open. Only its owner may read the file, and it is replaced whole.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from tongbao.kernel.errors import Conflict

KEY_BYTES: Final = 32
_WRAPPED: Final = "wrapped:"


class KeyFileUnreadable(Conflict):
    """The key file is damaged, or others may read it."""

    code = "crypto.key_file_unreadable"
    advice = "Restore the file from its backup and allow only its owner to read it (0600)."
    advice_zh = "请从备份恢复主密钥文件，并将权限设为仅所有者可读（0600）。"


class Wrapping(Struct, frozen=True):
    """How a security module wraps a key, and unwraps it."""

    wrap: Callable[[bytes], bytes]
    unwrap: Callable[[bytes], bytes]


def read(path: Path, wrapping: Wrapping | None = None) -> list[bytes]:
    """Return the keys of the file, the one that seals first.

    Raises:
        KeyFileUnreadable
    """
    return _keys_of(path, _text_of(path), wrapping)


def read_or_create(path: Path, wrapping: Wrapping | None = None) -> list[bytes]:
    """Return the keys of the file, which is made with one key when there is none.

    Raises:
        KeyFileUnreadable
    """
    text = _text_of(path) if path.exists() else create(path, wrapping)
    return _keys_of(path, text, wrapping)


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileUnreadable(path=str(path), reason="others may read it")
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise KeyFileUnreadable(path=str(path), reason="not readable") from None


def _keys_of(path: Path, text: str, wrapping: Wrapping | None) -> list[bytes]:
    """Return the keys of a file's lines, as they are or unwrapped."""
    keys = []
    for line in text.split():
        if line.startswith(_WRAPPED) and wrapping is None:
            raise KeyFileUnreadable(path=str(path), reason="a security module has wrapped it")
        try:
            raw = base64.b64decode(line.removeprefix(_WRAPPED), validate=True)
        except (binascii.Error, ValueError):
            raise KeyFileUnreadable(path=str(path), reason="not in base64") from None
        keys.append(wrapping.unwrap(raw) if wrapping and line.startswith(_WRAPPED) else raw)
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise KeyFileUnreadable(path=str(path), reason="not 32 bytes in base64")
    return keys


def _line_of(key: bytes, wrapping: Wrapping | None) -> str:
    if wrapping is None:
        return base64.b64encode(key).decode() + "\n"
    return _WRAPPED + base64.b64encode(wrapping.wrap(key)).decode() + "\n"


def add_key(path: Path, key: bytes) -> None:
    """Put a key on top of the file, whole or not at all; one that is there already stays.

    Raises:
        KeyFileUnreadable
    """
    text = _text_of(path)
    line = _line_of(key, None)
    if line not in text.splitlines(keepends=True):
        _write_key_file(path, line + text)


def wrap_keys(path: Path, wrapping: Wrapping) -> int:
    """Wrap every line of the file anew by a security module, and return how many there are.

    Raises:
        KeyFileUnreadable
    """
    keys = _keys_of(path, _text_of(path), wrapping)
    _write_key_file(path, "".join(_line_of(key, wrapping) for key in keys))
    return len(keys)


def _write_key_file(path: Path, text: str) -> None:
    """Replace the file in one step, so that a reader or a crash sees the old or the new."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    _write_secret(new, text)
    new.replace(path)
    _keep_name(path)


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def create(path: Path, wrapping: Wrapping | None = None) -> str:
    """Make the file whole or not at all; of two processes at once, the first one's key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.{os.getpid()}.new")
    _write_secret(half, _line_of(os.urandom(KEY_BYTES), wrapping))
    try:
        os.link(half, path)  # unlike a rename, this fails when the name exists
    except FileExistsError:
        pass
    finally:
        half.unlink()
    _keep_name(path)
    return _text_of(path)


def _keep_name(path: Path) -> None:
    """Make a file's name outlive a power cut: what is sealed from now on is lost without it."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
