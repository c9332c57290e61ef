"""The key of a merchant at Qra."""

from __future__ import annotations

from msgspec import Struct


class QraSecrets(Struct, frozen=True, forbid_unknown_fields=True):
    """The key both sides sign with."""

    secure_key: str

    def __post_init__(self) -> None:
        """Refuse a key that is none."""
        if not self.secure_key:
            raise ValueError("there is no key")

    def __repr__(self) -> str:
        return "QraSecrets(***)"
