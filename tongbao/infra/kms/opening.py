"""Open the keeper of master keys that the settings name, and the keyring through it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from tongbao.infra import key_file
from tongbao.infra.crypto import Keyring, Sealing
from tongbao.infra.key_file import Wrapping
from tongbao.infra.kms.file import FileKms
from tongbao.infra.kms.pkcs11 import Pkcs11Kms
from tongbao.infra.kms.port import Kms, KmsMisconfigured
from tongbao.infra.kms.sealing_keys import SealingKeys
from tongbao.infra.settings import Settings

_AAD: Final = b"tongbao key file"


class KeyDesk(Struct, frozen=True):
    """Who keeps the master keys, the sealing keys under them, and how the key file follows."""

    kms: Kms
    sealing_keys: SealingKeys
    wrap_lines: Callable[[], int]


_CIPHERS: Final = {"aes-256-gcm": Sealing.AES_256_GCM, "sm4-gcm": Sealing.SM4_GCM}


def open_keyring(settings: Settings) -> Keyring:
    """Return the keyring as the settings' provider of master keys opens it.

    With a security module the key file has lines that only the module unwraps; a plain line, from
    before there was one, still opens, and `KeyDesk.wrap_lines` wraps it.

    Raises:
        KeyFileUnreadable, KmsMisconfigured, KmsUnavailable, WrapUnreadable
    """
    if settings.kms_provider == "file":
        return Keyring.from_file(settings.kek_file)
    return Keyring.from_file(settings.kek_file, wrapping=_wrapping(_module_of(settings)))


def key_desk(settings: Settings, keyring: Keyring) -> KeyDesk:
    """Return the keeper of master keys beside a keyring that is open, and its sealing keys.

    Raises:
        KmsMisconfigured
    """
    cipher = _CIPHERS[settings.sealing_cipher]
    if settings.kms_provider == "file":
        kms = FileKms(keyring, settings.kek_file)
        return KeyDesk(kms, SealingKeys(kms, cipher), _nothing_to_wrap)
    module = _module_of(settings)
    wrap_lines = partial(key_file.wrap_keys, settings.kek_file, _wrapping(module))
    return KeyDesk(module, SealingKeys(module, cipher), wrap_lines)


def _nothing_to_wrap() -> int:
    return 0  # the lines are the master keys


def _module_of(settings: Settings) -> Pkcs11Kms:
    if settings.kms_module is None or settings.kms_token is None or settings.kms_pin is None:
        raise KmsMisconfigured(provider="pkcs11")
    return Pkcs11Kms(settings.kms_module, settings.kms_token, settings.kms_pin)


def _wrapping(kms: Kms) -> Wrapping:
    return Wrapping(partial(kms.wrap, aad=_AAD), partial(kms.unwrap, aad=_AAD))
