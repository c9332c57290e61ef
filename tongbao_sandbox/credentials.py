"""Key material: made once per data directory, and what a merchant is given of it.

``credentials.json`` is what the institution hands its merchant: numbers, the merchant's own keys
and the institution's public ones. ``institution.json`` holds the institution's private keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tongbao_sandbox.seam import Keys

SHOWN: Final = "credentials.json"
KEPT: Final = "institution.json"

KeyMaker = Callable[[], Keys]


def load_or_create(data_dir: Path, makers: Mapping[str, KeyMaker]) -> dict[str, Keys]:
    """Return every channel's keys, making those that this directory does not have yet."""
    shown = _read(data_dir / SHOWN)
    kept = _read(data_dir / KEPT)
    for name in makers:
        if name not in shown or name not in kept:
            keys = makers[name]()
            shown[name], kept[name] = keys.shown, keys.kept
    _write(data_dir / KEPT, kept)
    _write(data_dir / SHOWN, shown)
    return {name: Keys(shown=shown[name], kept=kept[name]) for name in makers}


def new_rsa() -> tuple[str, str]:
    """Return a fresh RSA-2048 pair as PEM: private (PKCS#8) and public."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def _read(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, str]])


def _write(path: Path, content: dict[str, dict[str, str]]) -> None:
    """Replace the file in one step, readable by its owner only."""
    part = path.with_suffix(".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(msgspec.json.format(msgspec.json.encode(content)))
    part.replace(path)
