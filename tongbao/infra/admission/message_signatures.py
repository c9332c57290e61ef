"""HTTP Message Signatures (RFC 9421): what a request says was signed, and the bytes that were.

    Content-Digest: sha-256=:…:                                            (RFC 9530)
    Signature-Input: tongbao=("@method" "@target-uri" "content-digest" "idempotency-key");
        created=1763712000;nonce="…";keyid="key_…";alg="ed25519";tag="tongbao"
    Signature: tongbao=:…:

Read from the raw headers, before anything of the body is parsed. Others may have signed the message
as well: ours is the one signature whose tag is ``tongbao``. What must be covered is what a request
does: its method, its whole address, its body by the digest and its Idempotency-Key.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from msgspec import Struct

from tongbao.infra.crypto import constant_time_equal
from tongbao.kernel.errors import Unauthenticated

TAG: Final = "tongbao"
HEADER_LENGTH_MAX: Final = 8192
"""Of each of the three headers; a proxy's own signature may stand beside ours."""
_COMPONENTS_MAX: Final = 32


class SignatureInputMalformed(Unauthenticated):
    """The Signature-Input or Signature header cannot be read."""

    code = "auth.signature_input_malformed"
    advice = (
        "Send Signature-Input and Signature as RFC 9421 has them, with one signature that is tagged"
        ' "tongbao" and has created, nonce and keyid.'
    )
    advice_zh = (
        "请按 RFC 9421 发送 Signature-Input 与 Signature 请求头，"
        '其中一个签名的 tag 为 "tongbao"，并带有 created、nonce 和 keyid。'
    )


class ComponentNotCovered(Unauthenticated):
    """The signature leaves out something that the request does."""

    code = "auth.component_not_covered"
    advice = "Cover the component that facts names, and sign again."
    advice_zh = "签名未覆盖 facts 中所列的组成部分，请加入后重新签名。"


class ComponentUnknown(Unauthenticated):
    """The signature covers something that the request lacks, or in a form we do not take."""

    code = "auth.component_unknown"
    advice = "Cover only what is sent; of parameters to a component, only a query parameter's name."
    advice_zh = "只能覆盖实际发送的组成部分；组成部分的参数仅支持 @query-param 的 name。"


class DigestMismatch(Unauthenticated):
    """The body is not the one that Content-Digest tells of."""

    code = "auth.digest_mismatch"
    advice = "Send Content-Digest with sha-256 or sha-512 of exactly the bytes of the body."
    advice_zh = "Content-Digest 必须是实际发送的请求体字节的 sha-256 或 sha-512 摘要。"


class SignedMessage(Struct, frozen=True):
    """A request, or an answer with its status, as far as signatures can cover it."""

    method: str
    scheme: str
    target: str  # path and query as on the request line
    headers: Sequence[tuple[str, str]]  # names in lower case, in their order
    body: bytes
    status: int | None = None
    digest: bytes | None = None  # SHA-256 of a body that is yet to come, compared when it has

    def field(self, name: str) -> str | None:
        """Return a header's value, those of several lines joined (RFC 9421 §2.1)."""
        found = [value.strip(" \t") for each, value in self.headers if each == name]
        return ", ".join(found) if found else None


class SignatureInput(Struct, frozen=True):
    """One signature of a message, as its headers have it.

    A component is its name, and behind that what it carries: ``@query-param;name="page"``.
    """

    components: tuple[str, ...]
    parameters: dict[str, str | int]
    signature: bytes

    @property
    def written(self) -> str:
        """Return list and parameters as RFC 8941 §4.1 writes them, however they were spaced."""
        names = " ".join(map(_identifier, self.components))
        ends = "".join(
            f";{name}={value if isinstance(value, int) else _quoted(value)}"
            for name, value in self.parameters.items()
        )
        return f"({names}){ends}"


class MessageSignature(Struct, frozen=True):
    """What was signed for us, when and with which key; nothing of it is proved yet."""

    components: tuple[str, ...]
    base: bytes  # what was signed
    key_id: str
    timestamp: int  # when it was created
    nonce: str
    signature: bytes
    algorithm: str | None = None
    expires: int | None = None


_LABEL: Final = r"[a-z*][a-z0-9_.*-]*"
_TEXT: Final = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_NUMBER: Final = r"-?(?:0|[1-9][0-9]{0,14})"
_PARAMETER: Final = rf"; *({_LABEL})=({_NUMBER}|{_TEXT})"
_ITS: Final = rf'(?:;{_LABEL}(?:=(?:{_TEXT}|[^ ();",]*))?)*'  # what a component may carry
_INPUT: Final = re.compile(
    rf"({_LABEL})=\(((?: *{_TEXT}{_ITS})* *)\)((?:{_PARAMETER})*)(?:[ \t]*,[ \t]*|$)"
)
_SIGNATURE: Final = re.compile(rf"({_LABEL})=:([A-Za-z0-9+/]*=*):(?:[ \t]*,[ \t]*|$)")
_DIGEST: Final = re.compile(r"([a-z0-9-]+)=:([A-Za-z0-9+/]*=*):(?:[ \t]*,[ \t]*|$)")
_ITEM: Final = re.compile(rf"({_TEXT})({_ITS})")
_ONE_PARAMETER: Final = re.compile(_PARAMETER)
_QUERY_PARAM: Final = re.compile(r'@query-param;name="([^"\\]*)"')
_KNOWN: Final = frozenset({"created", "expires", "nonce", "alg", "keyid", "tag"})
_NONCE: Final = re.compile(r"[A-Za-z0-9._~+/=-]{16,128}")
# One signature as most programs write it, which is as RFC 8941 §4.1 does, so that it need not be
# written anew. Whatever differs, if only by a blank, is read member by member.
_USUAL_NAME: Final = r'"[a-z0-9@-]+"'
_USUAL_INPUT: Final = re.compile(
    rf"({_LABEL})=(\(({_USUAL_NAME}(?: {_USUAL_NAME})*)\)"
    r'((?:;[a-z]+=(?:0|[1-9][0-9]{0,14}|"[A-Za-z0-9._~+/=:-]*"))+))'
)
_USUAL_PARAMETER: Final = re.compile(r';([a-z]+)=(?:"([^"]*)"|([0-9]+))')
_USUAL_SIGNATURE: Final = re.compile(rf"({_LABEL})=:([A-Za-z0-9+/]*=*):")
_HASHES: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "sha-256": lambda body: hashlib.sha256(body).digest(),
    "sha-512": lambda body: hashlib.sha512(body).digest(),
}


def read_message_signature(message: SignedMessage) -> MessageSignature:
    """Read the signature that is meant for us, or refuse it by its form alone.

    Raises:
        SignatureInputMalformed, ComponentUnknown
    """
    usual = _read_usual(message)
    if usual is not None:
        return usual
    ours = [one for one in read_signatures(message).values() if one.parameters.get("tag") == TAG]
    if len(ours) != 1:
        raise SignatureInputMalformed
    return _with_base(ours[0], lambda: signature_base(message, ours[0]))


def _read_usual(message: SignedMessage) -> MessageSignature | None:
    """Read the only signature of a message without repeated headers, if it is plainly written.

    Raises:
        SignatureInputMalformed, ComponentUnknown
    """
    fields = dict(message.headers)
    said, signature = fields.get("signature-input", ""), fields.get("signature", "")
    if len(fields) < len(message.headers) or len(said) + len(signature) > HEADER_LENGTH_MAX:
        return None
    read, signed = _USUAL_INPUT.fullmatch(said), _USUAL_SIGNATURE.fullmatch(signature)
    if read is None or signed is None or read.group(1) != signed.group(1):
        return None
    _, written, listed, raw = read.groups()
    found = _USUAL_PARAMETER.findall(raw)
    given = {name: int(number) if number else text for name, text, number in found}
    if len(given) < len(found) or given.get("tag") != TAG:
        return None
    only = SignatureInput(_components(listed), given, _decoded(signed.group(2)))
    return _with_base(only, lambda: _usual_base(message, fields, listed, written))


def _usual_base(
    message: SignedMessage, fields: Mapping[str, str], listed: str, written: str
) -> bytes:
    """Return the same as `signature_base`, where no header is repeated.

    Raises:
        ComponentUnknown
    """
    lines = []
    for name, begins, derived in _lines_of(listed):
        value = fields.get(name) if derived is None else derived(message, fields.get("host", ""))
        if value is None:
            raise ComponentUnknown(component=name[:64])
        lines.append(begins + (value.strip(" \t") if derived is None else value))
    lines.append(f'"@signature-params": {written}')
    return "\n".join(lines).encode("latin-1")


@lru_cache(maxsize=1000)
def _lines_of(listed: str) -> tuple[tuple[str, str, _Derive | None], ...]:
    """Return of each component its name, how its line begins, and by what it is made."""
    return tuple((it, f"{_identifier(it)}: ", _DERIVED.get(it)) for it in _components(listed))


def _with_base(said: SignatureInput, base: Callable[[], bytes]) -> MessageSignature:
    """Return what was signed for us, if it has what that must have and no more than we know.

    Raises:
        SignatureInputMalformed, ComponentUnknown
    """
    given = said.parameters
    key_id, nonce, created = given.get("keyid"), given.get("nonce"), given.get("created")
    algorithm, expires = given.get("alg"), given.get("expires")
    if not given.keys() <= _KNOWN:
        raise SignatureInputMalformed
    if not isinstance(key_id, str) or not isinstance(created, int):
        raise SignatureInputMalformed
    if not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
        raise SignatureInputMalformed
    if isinstance(algorithm, int) or isinstance(expires, str):
        raise SignatureInputMalformed
    return MessageSignature(
        said.components, base(), key_id, created, nonce, said.signature, algorithm, expires
    )


def read_signatures(message: SignedMessage) -> dict[str, SignatureInput]:
    """Return the signatures of a message by their labels.

    Raises:
        SignatureInputMalformed
    """
    signed = _members(_SIGNATURE, message.field("signature"))
    found = {}
    for label, (_, listed, parameters, *_) in _members(
        _INPUT, message.field("signature-input")
    ).items():
        if label not in signed:
            raise SignatureInputMalformed
        found[label] = SignatureInput(
            _components(listed), _parameters(parameters), _decoded(signed[label][1])
        )
    return found


def signature_base(message: SignedMessage, said: SignatureInput) -> bytes:
    """Return the bytes that are signed (RFC 9421 §2.5).

    Raises:
        ComponentUnknown
    """
    lines = [f"{_identifier(name)}: {_value(message, name)}" for name in said.components]
    return "\n".join([*lines, f'"@signature-params": {said.written}']).encode("latin-1")


def check_covered(message: SignedMessage, said: MessageSignature) -> None:
    """Raise unless everything that the request does is covered, and the body is what is told.

    Raises:
        ComponentNotCovered, DigestMismatch
    """
    has_body = bool(message.body) or message.digest is not None
    has_key = message.field("idempotency-key") is not None
    missing = _not_covered(said.components, has_body, has_key, "?" in message.target)
    if missing is not None:
        raise ComponentNotCovered(component=missing)
    if message.digest is None and (message.body or "content-digest" in said.components):
        _check_digest(message)


@lru_cache(maxsize=1000)  # a sender covers the same with every request
def _not_covered(
    components: tuple[str, ...], has_body: bool, has_key: bool, has_query: bool
) -> str | None:
    """Return the first component that should be covered and is not."""
    needed = ["@method"]
    if "@target-uri" not in components:
        needed += ["@authority", "@path", *(["@query"] if has_query else [])]
    needed += ["content-digest"] if has_body else []
    needed += ["idempotency-key"] if has_key else []
    return next((name for name in needed if name not in components), None)


def content_digest(body: bytes) -> str:
    """Return the Content-Digest of a body (RFC 9530 §2)."""
    digest = binascii.b2a_base64(hashlib.sha256(body).digest(), newline=False).decode()
    return f"sha-256=:{digest}:"


def _check_digest(message: SignedMessage) -> None:
    field = message.field("content-digest")
    # As most programs write it.
    if constant_time_equal((field or "").encode("latin-1"), content_digest(message.body).encode()):
        return
    told = {
        name: _decoded(digest)
        for name, digest in _members(_DIGEST, field).values()
        if name in _HASHES
    }
    if not told:
        raise DigestMismatch
    for name, digest in told.items():
        if not constant_time_equal(_HASHES[name](message.body), digest):
            raise DigestMismatch


def _members(pattern: re.Pattern[str], text: str | None) -> dict[str, tuple[str, ...]]:
    """Return the members of a header that is a dictionary, each by its name.

    Raises:
        SignatureInputMalformed
    """
    if not text or len(text) > HEADER_LENGTH_MAX or text.endswith(","):
        raise SignatureInputMalformed
    found: dict[str, tuple[str, ...]] = {}
    at = 0
    while at < len(text):
        match = pattern.match(text, at)
        if match is None or match.group(1) in found:
            raise SignatureInputMalformed
        found[match.group(1)] = tuple(each or "" for each in match.groups())
        at = match.end()
    return found


def _parameters(raw: str) -> dict[str, str | int]:
    """Return the parameters of a list in their order.

    Raises:
        SignatureInputMalformed
    """
    found: dict[str, str | int] = {}
    for name, value in _ONE_PARAMETER.findall(raw):
        if name in found:
            raise SignatureInputMalformed
        found[name] = _unquoted(value) if value.startswith('"') else int(value)
    return found


@lru_cache(maxsize=1000)  # a sender covers the same with every request
def _components(listed: str) -> tuple[str, ...]:
    found = [_unquoted(name) + its for name, its in _ITEM.findall(listed)]
    if len(found) > _COMPONENTS_MAX or len(set(found)) < len(found):
        raise SignatureInputMalformed
    return tuple(found)


@lru_cache(maxsize=1000)
def _identifier(component: str) -> str:
    name, semicolon, its = component.partition(";")
    return f"{_quoted(name)}{semicolon}{its}"


def _value(message: SignedMessage, name: str) -> str:
    """Return the value of a component (RFC 9421 §2.1 and §2.2)."""
    derived = _DERIVED.get(name)
    if derived is not None:
        return derived(message, message.field("host") or "")
    asked = _QUERY_PARAM.fullmatch(name)
    value = _query_param(message, asked.group(1)) if asked else message.field(name)
    if value is None:
        raise ComponentUnknown(component=name[:64])
    return value


def _authority(message: SignedMessage, host: str) -> str:
    """Return the host in lower case, and its port unless it is the scheme's own (§2.2.3)."""
    return host.strip(" \t").lower().removesuffix(":443" if message.scheme == "https" else ":80")


def _query_param(message: SignedMessage, name: str) -> str | None:
    """Return a parameter of the query, percent-encoded anew (§2.2.8); None when not there once."""
    query = parse_qsl(message.target.partition("?")[2], keep_blank_values=True)
    found = [value for each, value in query if each == unquote(name)]
    return quote(found[0], safe="") if len(found) == 1 else None


_Derive = Callable[[SignedMessage, str], str]  # of the message, and what it says is its host
_DERIVED: Final[Mapping[str, _Derive]] = {
    "@method": lambda message, _: message.method,
    "@target-uri": lambda message, host: (
        f"{message.scheme}://{_authority(message, host)}{message.target}"
    ),
    "@authority": _authority,
    "@scheme": lambda message, _: message.scheme,
    "@request-target": lambda message, _: message.target,
    "@path": lambda message, _: message.target.partition("?")[0],
    "@status": lambda message, _: str(message.status or ""),
    "@query": lambda message, _: f"?{message.target.partition('?')[2]}",
}


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except binascii.Error:
        raise SignatureInputMalformed from None


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if "\\" in text else text[1:-1]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
