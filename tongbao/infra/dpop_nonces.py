"""Nonces of the server's for DPoP proofs (RFC 9449 §8): a proof made in advance is worth nothing.

They are worked out from the time and a key that every process has, so nobody keeps them, and each
is good for three to six minutes.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Final

from tongbao.infra.crypto import constant_time_equal, hmac_sha256
from tongbao.kernel.clock import real_now

PURPOSE: Final = "dpop.nonce"
WINDOW_S: Final = 180
_BYTES: Final = 18


def current_nonce(key: bytes) -> str:
    """Return the nonce to be put into proofs now."""
    return _nonce(key, _window())


def is_fresh(key: bytes, said: object) -> bool:
    """Tell whether a nonce is of now or of the window before."""
    if not isinstance(said, str) or not said.isascii():
        return False
    window = _window()
    good = (_nonce(key, each).encode() for each in (window, window - 1))
    return any(constant_time_equal(each, said.encode()) for each in good)


def _window() -> int:
    return int(real_now().timestamp()) // WINDOW_S


def _nonce(key: bytes, window: int) -> str:
    return urlsafe_b64encode(hmac_sha256(key, str(window).encode())[:_BYTES]).decode()
