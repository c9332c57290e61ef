"""JSON Web Tokens that others sign (RFC 7515, 7517, 7519): read strictly, then verified.

Only this module imports the library. A token is first read by our own code, because the library
takes some texts that are not canonical base64url, and then one token would have several texts.
What may sign is what FAPI 2.0 Security Profile §5.4.1 lists: PS256, ES256, EdDSA.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact, serialize_compact
from joserfc.registry import HeaderParameter
from msgspec import Struct

from tongbao.kernel.errors import Invalid

ALGORITHMS: Final = ("PS256", "ES256", "EdDSA")
TOKEN_LENGTH_MAX: Final = 8192
KEYS_MAX: Final = 10
RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 4096
_STRICT: Final = re.compile(r"[A-Za-z0-9_-]+")
_HEADERS: Final = frozenset({"alg", "typ", "kid", "jwk", "cty"})
# The private parts of keys, RFC 7518 §6 and RFC 8037 §2; ``k`` is a symmetric key.
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_ALGORITHM_OF: Final = {"RSA": "PS256", "EC": "ES256", "OKP": "EdDSA"}
_CURVE_OF: Final = {"EC": "P-256", "OKP": "Ed25519"}

Jwk = Mapping[str, Any]


class TokenMalformed(Invalid):
    """The token is not one, or is not signed by the key that it has to be signed by."""

    code = "jose.token_malformed"
    advice = "Send a compact JWS in strict base64url, signed with PS256, ES256 or EdDSA."
    advice_zh = "请发送严格 base64url 编码的 JWS，并以 PS256、ES256 或 EdDSA 签名。"


class KeySetUnusable(Invalid):
    """A key set is empty, has a key that may not sign here, or shows a private key."""

    code = "jose.key_set_unusable"
    advice = (
        "Send 1 to 10 public keys, each with its own kid: RSA of 2048 to 4096 bits, EC on P-256,"
        " or Ed25519."
    )
    advice_zh = "请提供 1 至 10 个公钥，各有不同的 kid：2048 至 4096 位 RSA、P-256 或 Ed25519。"


class Signed(Struct, frozen=True):
    """A signature and what it is over, of which nothing is true before `verify`."""

    text: str
    header: dict[str, Any]
    payload: bytes


class Token(Struct, frozen=True):
    """What a token says, of which nothing is true before `verify`."""

    text: str
    header: dict[str, Any]
    claims: dict[str, Any]


def read_signed(text: str) -> Signed:
    """Take a compact JWS apart without believing it.

    Raises:
        TokenMalformed
    """
    parts = text.split(".")
    if len(text) > TOKEN_LENGTH_MAX or len(parts) != 3:
        raise TokenMalformed
    header, payload, _ = (strict_bytes(part) for part in parts)
    said = _object(header)
    if said.get("alg") not in ALGORITHMS or not set(said) <= _HEADERS:
        raise TokenMalformed
    return Signed(text, said, payload)


def read_token(text: str) -> Token:
    """Take a token apart without believing it.

    Raises:
        TokenMalformed
    """
    signed = read_signed(text)
    return Token(text, signed.header, _object(signed.payload))


def verify(token: Token | Signed, key: Jwk) -> None:
    """Raise unless this key has signed the token, by the one algorithm that fits the key.

    Raises:
        TokenMalformed
    """
    if token.header["alg"] != _ALGORITHM_OF.get(key.get("kty", "")):
        raise TokenMalformed
    try:
        deserialize_compact(token.text, _key(key), algorithms=list(ALGORITHMS))
    except (JoseError, ValueError, TypeError, KeyError):
        raise TokenMalformed from None


class Detached(Struct, frozen=True):
    """A signature whose payload is sent apart (RFC 7515 appendix F), as it came."""

    text: str
    header: dict[str, Any]
    signature: str


def read_detached(text: str) -> Detached:
    """Take a detached signature apart without believing it.

    Raises:
        TokenMalformed
    """
    parts = text.split(".")
    if len(text) > TOKEN_LENGTH_MAX or len(parts) != 3 or parts[1]:
        raise TokenMalformed
    header = _object(strict_bytes(parts[0]))
    strict_bytes(parts[2])
    return Detached(text, header, parts[2])


def verify_detached(said: Detached, payload: bytes, key: Jwk, critical: Sequence[str]) -> None:
    """Raise unless this RSA key has signed this payload by PS256.

    ``critical`` are the members of the header that the caller has understood.

    Raises:
        TokenMalformed
    """
    first, last = said.text.partition(".")[0], said.signature
    try:
        deserialize_compact(
            f"{first}.{_encoded(payload)}.{last}", _key(key), registry=_ps256(critical)
        )
    except (JoseError, ValueError, TypeError, KeyError):
        raise TokenMalformed from None


def sign_detached(header: Mapping[str, Any], payload: bytes, der: bytes) -> str:
    """Return a detached signature by PS256; ``crit`` of the header says what is critical in it."""
    registry = _ps256(header.get("crit", ()))
    text = serialize_compact(dict(header), payload, _private(der), registry=registry)
    first, _, last = text.split(".")
    return f"{first}..{last}"


def sign_token(header: Mapping[str, Any], claims: Mapping[str, Any], der: bytes) -> str:
    """Return claims as a compact token, signed by PS256 with a private RSA key in PKCS #8."""
    payload = msgspec.json.encode(claims)
    return serialize_compact(dict(header), payload, _private(der), registry=_ps256(()))


def new_rsa_key() -> bytes:
    """Return a new private key of 2048 bits, in PKCS #8; that takes a tenth of a second."""
    return RSAKey.generate_key(RSA_BITS_MIN).as_bytes("DER", private=True)


def public_jwk(der: bytes) -> dict[str, Any]:
    """Return the public half of a private RSA key."""
    found = RSAKey.import_key(der).as_dict(private=False)
    return {name: found[name] for name in ("kty", "n", "e")}


def key_with_id(keys: Sequence[Jwk], kid: object, algorithm: object) -> Jwk:
    """Return the key that a token's header means; without a kid, the only one that fits.

    Raises:
        TokenMalformed
    """
    fitting = [
        key
        for key in keys
        if _ALGORITHM_OF.get(key["kty"]) == algorithm and (kid is None or key.get("kid") == kid)
    ]
    if len(fitting) != 1:
        raise TokenMalformed
    return fitting[0]


def check_public_key(key: object) -> Jwk:
    """Return a public key that may sign here.

    Raises:
        TokenMalformed
    """
    if not isinstance(key, dict) or _PRIVATE & set(key):
        raise TokenMalformed
    kind = key.get("kty")
    if not isinstance(kind, str) or kind not in _ALGORITHM_OF or "x5u" in key:
        raise TokenMalformed
    if kind in _CURVE_OF and key.get("crv") != _CURVE_OF[kind]:
        raise TokenMalformed
    if key.get("use", "sig") != "sig" or key.get("alg", _ALGORITHM_OF[kind]) != _ALGORITHM_OF[kind]:
        raise TokenMalformed
    if "key_ops" in key and key["key_ops"] != ["verify"]:  # RFC 7517 §4.3: no other use is meant
        raise TokenMalformed
    for member in ("n", "e", "x", "y"):
        if member in key:
            strict_bytes(key[member])
    try:
        made = _key(key)
    except (JoseError, ValueError, TypeError, KeyError):
        raise TokenMalformed from None
    if isinstance(made, RSAKey) and not (RSA_BITS_MIN <= made.public_key.key_size <= RSA_BITS_MAX):
        raise TokenMalformed
    return key


def check_key_set(document: object) -> list[dict[str, Any]]:
    """Return the keys of a JWKS document (RFC 7517 §5).

    Raises:
        KeySetUnusable
    """
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= KEYS_MAX:
        raise KeySetUnusable
    try:
        checked = [dict(check_public_key(key)) for key in keys]
    except TokenMalformed:
        raise KeySetUnusable from None
    names = [key.get("kid") for key in checked]
    if not all(isinstance(name, str) and 0 < len(name) <= 128 for name in names):
        raise KeySetUnusable
    if len(set(names)) != len(names):
        raise KeySetUnusable
    return checked


def thumbprint(key: Jwk) -> str:
    """Return what names a key by its content (RFC 7638)."""
    return str(_key(key).thumbprint())


def public_key_of(key: Jwk) -> bytes:
    """Return a public key as certificates have it: SubjectPublicKeyInfo in DER."""
    return _key(key).as_bytes("DER", private=False)


def s256(text: str) -> str:
    """Return base64url of SHA-256: PKCE's S256 (RFC 7636) and DPoP's ath (RFC 9449)."""
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def strict_bytes(text: object) -> bytes:
    """Return what base64url without padding stands for, refusing every second way to write it.

    Raises:
        TokenMalformed
    """
    if not isinstance(text, str) or not _STRICT.fullmatch(text) or len(text) % 4 == 1:
        raise TokenMalformed
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=").decode() != text:  # bits that mean nothing are not zero
        raise TokenMalformed
    return raw


def _ps256(critical: Sequence[str]) -> JWSRegistry:
    """Return a registry that takes PS256 alone, and these members as understood."""
    known = {name: HeaderParameter(name, _taken) for name in critical}
    return JWSRegistry(known, ["PS256"])


@lru_cache(maxsize=8)
def _private(der: bytes) -> RSAKey:
    """Return a key of ours, checked once: that takes longer than to sign with it."""
    return RSAKey.import_key(der)


def _taken(_value: object) -> None:
    """Leave a member to whoever said that it was understood."""


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _object(raw: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise TokenMalformed from None
    if not isinstance(found, dict):
        raise TokenMalformed
    return found


def _key(key: Jwk) -> RSAKey | ECKey | OKPKey:
    public = {name: value for name, value in key.items() if name not in {"key_ops", "alg", "use"}}
    match key["kty"]:
        case "RSA":
            return RSAKey.import_key(public)
        case "EC":
            return ECKey.import_key(public)
    return OKPKey.import_key(public)
