"""Master keys in the key file: for a laptop and a small shop, with nothing to install."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tongbao.infra import key_file
from tongbao.infra.crypto import (
    Algorithm,
    Keyring,
    SealUnreadable,
    ed25519_public_key,
    ed25519_sign,
    ed25519_verify,
)
from tongbao.infra.kms.port import KmsMisconfigured, MasterKey, WrapUnreadable

_WRAPPING: Final = "kms.sealing_key"
_SIGNING: Final = "kms.signing_seed"
_KEY_ID: Final = slice(1, 5)


class FileKms:
    """The keyring as a keeper of master keys: each line of its file is one."""

    provider: str = "file"
    takes_components: bool = True

    def __init__(self, keyring: Keyring, path: Path | None) -> None:
        self._keyring = keyring
        self._path = path

    def master_keys(self) -> Sequence[MasterKey]:
        """Return the lines of the file as it is now, the first one first."""
        self._keyring.reread()
        ids = self._keyring.key_ids
        algorithm = Algorithm.AES_256_GCM.value
        return [MasterKey(each, len(ids) - at, algorithm) for at, each in enumerate(ids)]

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Return a key sealed under the first line."""
        return self._keyring.seal(_WRAPPING, key, aad)

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Return a key that some line has sealed.

        Raises:
            WrapUnreadable
        """
        try:
            return self._keyring.open(_WRAPPING, wrapped, aad)
        except SealUnreadable:
            raise WrapUnreadable(master=self.master_of(wrapped)) from None

    def master_of(self, wrapped: bytes) -> str:
        """Return the id of the line that sealed it."""
        return wrapped[_KEY_ID].hex()

    def rotate(self, material: bytes | None, reference: str) -> MasterKey:
        """Put the custodians' key on top of the file; one that is there already stays.

        Raises:
            KmsMisconfigured: there is no file, or no key was given.
        """
        del reference  # the same two components make the same key
        if material is None or self._path is None:
            raise KmsMisconfigured(provider=self.provider)
        key_file.add_key(self._path, material)
        self._keyring.reread()
        return self.master_keys()[0]

    def sign(self, message: bytes) -> bytes:
        """Return an Ed25519 signature by a key that follows from the oldest line."""
        return ed25519_sign(self._keyring.mac_key(_SIGNING), message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `sign` made the signature for exactly this message."""
        public = ed25519_public_key(self._keyring.mac_key(_SIGNING))
        return ed25519_verify(public, message, signature)
