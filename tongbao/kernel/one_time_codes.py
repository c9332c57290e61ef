"""One-time codes: HOTP (RFC 4226), TOTP (RFC 6238) and OCRA (RFC 6287), as pure arithmetic.

Who keeps the secret, and makes sure that a code is taken once, is somebody else's business. An OCRA
suite such as ``OCRA-1:HOTP-SHA256-8:C-QN08-PSHA1`` says what goes into a response, in this order:
a counter, the question, the hash of a PIN, the session, the time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from msgspec import Struct

STEP_S: Final = 30
"""Seconds of one TOTP step, what authenticator apps take for granted."""
_HASHES: Final = {"SHA1": "sha1", "SHA256": "sha256", "SHA512": "sha512"}
_SUITE: Final = re.compile(
    r"OCRA-1:HOTP-(SHA1|SHA256|SHA512)-(0|[4-9]|10):(C-)?Q([ANH])(0[4-9]|[1-5]\d|6[0-4])"
    r"(?:-P(SHA1|SHA256|SHA512))?(?:-S(\d{3}))?(?:-T(\d{1,2})([SMH]))?"
)
_QUESTION_BYTES: Final = 128
_SECONDS: Final = {"S": 1, "M": 60, "H": 3600}


class OcraSuite(Struct, frozen=True):
    """What a suite's name says."""

    name: str
    algorithm: str
    digits: int  # 0: the whole hash, as hexadecimal
    counts: bool
    question_kind: str  # A: letters and digits, N: digits, H: hexadecimal
    question_length: int
    pin_algorithm: str | None
    session_bytes: int | None
    step_s: int | None


def hotp(secret: bytes, counter: int, *, digits: int = 6, algorithm: str = "sha1") -> str:
    """Return the code of one moving factor."""
    mac = hmac.digest(secret, counter.to_bytes(8, "big"), algorithm)
    return _truncated(mac, digits)


def totp(
    secret: bytes, at_s: int, *, digits: int = 6, algorithm: str = "sha1", step_s: int = STEP_S
) -> str:
    """Return the code of the step that a Unix time lies in."""
    return hotp(secret, at_s // step_s, digits=digits, algorithm=algorithm)


def read_suite(name: str) -> OcraSuite:
    """Return what a suite's name says.

    Raises:
        ValueError: it is no suite of OCRA version 1.
    """
    found = _SUITE.fullmatch(name)
    if found is None:
        raise ValueError("no OCRA suite")
    algorithm, digits, counts, kind, length, pin, session, steps, unit = found.groups()
    return OcraSuite(
        name=name,
        algorithm=_HASHES[algorithm],
        digits=int(digits),
        counts=counts is not None,
        question_kind=kind,
        question_length=int(length),
        pin_algorithm=_HASHES[pin] if pin else None,
        session_bytes=int(session) if session else None,
        step_s=int(steps) * _SECONDS[unit] if steps else None,
    )


def ocra(
    suite: OcraSuite,
    secret: bytes,
    question: str,
    *,
    counter: int = 0,
    pin: str = "",
    session: bytes = b"",
    steps: int = 0,
) -> str:
    """Return the response to a question; what the suite does not name is left out.

    Raises:
        ValueError: the question is none of the suite's.
    """
    message = suite.name.encode() + b"\x00"
    if suite.counts:
        message += counter.to_bytes(8, "big")
    message += _question(suite, question).ljust(_QUESTION_BYTES, b"\x00")
    if suite.pin_algorithm is not None:
        message += hashlib.new(suite.pin_algorithm, pin.encode()).digest()
    if suite.session_bytes is not None:
        message += session.rjust(suite.session_bytes, b"\x00")[-suite.session_bytes :]
    if suite.step_s is not None:
        message += steps.to_bytes(8, "big")
    mac = hmac.digest(secret, message, suite.algorithm)
    return mac.hex() if suite.digits == 0 else _truncated(mac, suite.digits)


def _question(suite: OcraSuite, question: str) -> bytes:
    """Return a question as bytes; twice the length may be a question of both sides, §7.3.

    Digits become a number in hexadecimal, filled up on the right (RFC 6287 §5.1).
    """
    if not question.isascii() or not 4 <= len(question) <= 2 * suite.question_length:
        raise ValueError("a question of another length")
    if suite.question_kind == "A":
        if not question.isalnum():
            raise ValueError("letters and digits only")
        return question.encode()
    if suite.question_kind == "N":
        if not question.isdecimal():
            raise ValueError("digits only")
        digits = f"{int(question):x}"
    else:
        digits = question
    return bytes.fromhex(digits + "0" * (len(digits) % 2))


def _truncated(mac: bytes, digits: int) -> str:
    """Return the decimal digits at the place that the last half byte points to (RFC 4226 §5.3)."""
    at = mac[-1] & 0xF
    number = int.from_bytes(mac[at : at + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).rjust(digits, "0")
