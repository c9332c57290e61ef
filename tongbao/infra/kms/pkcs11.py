"""Master keys in a security module, by PKCS#11 (v2.40 and later): they never leave it.

    wrapped = "H" | version 4 | nonce 12 | AES-256-GCM of (32 zero bytes | key), and tag

The zero bytes make a wrapped key open under one master key only, which GCM alone does not promise.
Each master key is an object named ``tongbao-master/<version>/<reference>``; what signs is a pair on
the curve P-256 named ``tongbao-signing``.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from tongbao.infra.kms.port import KmsMisconfigured, KmsUnavailable, MasterKey, WrapUnreadable
from tongbao.infra.settings import Secret

_LABEL: Final = "tongbao-master"
_SIGNING: Final = "tongbao-signing"
_MARK: Final = b"H"
_NONCE_BYTES: Final = 12
_HEADER_BYTES: Final = 1 + 4 + _NONCE_BYTES
_PROOF: Final = bytes(32)
_TAG_BITS: Final = 128


class Pkcs11Kms:
    """One token of a security module. Its calls take turns: a session is one thread's at a time."""

    provider: str = "pkcs11"
    takes_components: bool = False

    def __init__(self, module: Path, token: str, pin: Secret) -> None:
        try:
            self._api: Any = importlib.import_module("pkcs11")
            self._mechanisms: Any = importlib.import_module("pkcs11.mechanisms")
            self._curves: Any = importlib.import_module("pkcs11.util.ec")
        except ImportError:
            raise KmsMisconfigured(missing="python-pkcs11") from None
        self._module, self._token, self._pin = module, token, pin
        self._turn = threading.Lock()
        self._open: Any = None

    def master_keys(self) -> Sequence[MasterKey]:
        """Return the token's, the one that wraps first; the first call makes one."""
        with self._session() as session:
            return [self._shown(each) for each in self._masters(session)]

    def wrap(self, key: bytes, aad: bytes) -> bytes:
        """Return a key encrypted in the module under its newest master key."""
        nonce = os.urandom(_NONCE_BYTES)
        with self._session() as session:
            newest = self._masters(session)[0]
            header = _MARK + self._shown(newest).version.to_bytes(4, "big") + nonce
            sealed = newest.encrypt(_PROOF + key, **self._gcm(nonce, header + aad))
        return header + bytes(sealed)

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Return a key that the module has encrypted for the same owner.

        Raises:
            WrapUnreadable, KmsUnavailable
        """
        header, sealed = wrapped[:_HEADER_BYTES], wrapped[_HEADER_BYTES:]
        if len(header) < _HEADER_BYTES or header[:1] != _MARK:
            raise WrapUnreadable(master=_id_of(wrapped))
        with self._session() as session:
            for each in self._masters(session):
                # Two processes that came first at once have made two keys of one version.
                if self._shown(each).id == _id_of(wrapped):
                    text = self._decrypted(each, sealed, self._gcm(header[5:], header + aad))
                    if text is not None and text.startswith(_PROOF):
                        return text[len(_PROOF) :]
        raise WrapUnreadable(master=_id_of(wrapped))

    def _decrypted(self, master: Any, sealed: bytes, how: dict[str, Any]) -> bytes | None:
        try:
            return bytes(master.decrypt(sealed, **how))
        except self._api.exceptions.PKCS11Error as failure:
            if _is_lost(failure):
                raise
            return None  # modules differ in what they call a wrong tag

    def master_of(self, wrapped: bytes) -> str:
        """Return the id of the master key that wrapped it."""
        return _id_of(wrapped)

    def rotate(self, material: bytes | None, reference: str) -> MasterKey:
        """Have the module draw a new master key; the same reference again finds the first one.

        Raises:
            KmsMisconfigured: material was given, which a module does not take.
        """
        if material is not None:
            raise KmsMisconfigured(provider=self.provider)
        with self._session() as session:
            masters = self._masters(session)
            for each in masters:
                if _reference_of(each.label) == reference:
                    return self._shown(each)
            return self._shown(self._make(session, self._shown(masters[0]).version + 1, reference))

    def sign(self, message: bytes) -> bytes:
        """Return an ECDSA P-256 signature (r and s) by the token's own pair."""
        with self._session() as session:
            [private] = self._pair(session, self._api.ObjectClass.PRIVATE_KEY)
            digest, mechanism = sha256(message).digest(), self._api.Mechanism.ECDSA
            return bytes(private.sign(digest, mechanism=mechanism))

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `sign` made the signature for exactly this message."""
        with self._session() as session:
            [public] = self._pair(session, self._api.ObjectClass.PUBLIC_KEY)
            digest, mechanism = sha256(message).digest(), self._api.Mechanism.ECDSA
            return bool(public.verify(digest, signature, mechanism=mechanism))

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """Give the one session to one caller, opened again after a failure of it."""
        with self._turn:
            try:
                if self._open is None:
                    self._open = self._logged_in()
                yield self._open
            except (self._api.exceptions.PKCS11Error, RuntimeError, OSError) as failure:
                self._open = None
                raise KmsUnavailable(reason=type(failure).__name__) from None

    def _logged_in(self) -> Any:
        """Open a session. Who has logged in is the whole process' business, not one session's."""
        found = self._api.lib(str(self._module)).get_token(token_label=self._token)
        try:
            return found.open(rw=True, user_pin=self._pin.reveal())
        except self._api.exceptions.UserAlreadyLoggedIn:
            return found.open(rw=True)

    def _masters(self, session: Any) -> list[Any]:
        wanted = {self._api.Attribute.CLASS: self._api.ObjectClass.SECRET_KEY}
        found = [
            each for each in session.get_objects(wanted) if each.label.startswith(f"{_LABEL}/")
        ]
        if not found:
            found = [self._make(session, 1, "first")]
        return sorted(found, key=lambda each: -self._shown(each).version)

    def _make(self, session: Any, version: int, reference: str) -> Any:
        flags, names = self._api.MechanismFlag, self._api.Attribute
        return session.generate_key(
            self._api.KeyType.AES,
            256,
            label=f"{_LABEL}/{version}/{reference}",
            store=True,
            capabilities=flags.ENCRYPT | flags.DECRYPT,
            template={names.SENSITIVE: True, names.EXTRACTABLE: False},
        )

    def _pair(self, session: Any, kind: Any) -> list[Any]:
        names = self._api.Attribute
        wanted = {names.CLASS: kind, names.LABEL: _SIGNING}
        found = list(session.get_objects(wanted))
        if not found:
            curve = self._curves.encode_named_curve_parameters("secp256r1")
            made = session.create_domain_parameters(
                self._api.KeyType.EC, {names.EC_PARAMS: curve}, local=True
            )
            made.generate_keypair(store=True, label=_SIGNING)
            found = list(session.get_objects(wanted))
        return found[:1]

    def _gcm(self, nonce: bytes, aad: bytes) -> dict[str, Any]:
        return {
            "mechanism": self._api.Mechanism.AES_GCM,
            "mechanism_param": self._mechanisms.GCMParams(nonce, aad, _TAG_BITS),
        }

    def _shown(self, key: Any) -> MasterKey:
        version = int(key.label.split("/")[1])
        return MasterKey(f"hsm-{version}", version, "AES-256-GCM in a security module")


def _id_of(wrapped: bytes) -> str:
    return f"hsm-{int.from_bytes(wrapped[1:5], 'big')}"


def _reference_of(label: str) -> str:
    return label.split("/", 2)[2]


def _is_lost(failure: Exception) -> bool:
    return any(word in type(failure).__name__ for word in ("Session", "Device", "Token", "User"))
