"""Check a receipt of Tongbao's ledger, or that its book was only ever added to.

This file needs Python 3.9 and nothing else: no package, no network, none of Tongbao's own code.
It judges what it is given by the key you trust, and by nothing else:

    python verify_receipt.py receipt.json KEY [KEY ...]

A KEY is a line such as ``tongbao.log/0123…+1a2b3c4d+AQID…``, as Tongbao publishes it; every key
you name must have signed. Exit code 0 means proved; 1 means not, and says what is wrong.

What a receipt proves: that the book with the signed root holds exactly these transfers, at these
places. The side of a transfer that belongs to somebody else is a sealed commitment: nobody can
change it later, and you cannot look into it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import struct
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

RECEIPT = "tongbao.receipt/1"
CONSISTENCY = "tongbao.consistency/1"
AUDIT_ENTRY = "tongbao.audit_entry/1"
AUDIT_CONSISTENCY = "tongbao.audit_consistency/1"
BOOK = (
    r"(?P<origin>[!-~]+/book/(?P<book>[1-9][0-9]*))\n(?P<size>0|[1-9][0-9]*)\n(?P<root>\S+)\n"
    r"batch (?P<batch>[0-9]+)\nhead (?P<head>\S+)\n"
    r"codes (?P<codes>[0-9]+) (?P<codes_root>\S+)\n"
    r"time (?P<time>\S+)\n(day (?P<day>\S+)\n)?"
)
AUDIT_LOG = (
    r"(?P<origin>[!-~]+/audit)\n(?P<size>0|[1-9][0-9]*)\n(?P<root>\S+)\ntime (?P<time>\S+)\n"
)
KINDS = {"single": 1, "pending": 2, "post": 3, "void": 4, "expire": 5}
ENTRY = struct.Struct(">iq16sqhhi16s16siiq3s32s32s")
ED25519_TYPE = b"\x01"
SM2_TYPE = b"\xffSM2\n"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017 - Python 3.9
NOTHING = bytes(16)
LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"


class Wrong(Exception):
    """What was given does not prove what it says."""


# What a receipt says


def check(text: str, keys: Sequence[str]) -> list[str]:
    """Return what is proved, a line each; raise Wrong when anything at all does not hold."""
    try:
        given = json.loads(text, object_pairs_hook=_no_doubles)
    except ValueError:
        raise Wrong("not JSON, or a name twice") from None
    kind = given.get("object") if isinstance(given, dict) else None
    if kind == RECEIPT:
        return _check_receipt(given, keys)
    if kind == AUDIT_ENTRY:
        return _check_audit_entry(given, keys)
    if kind in {CONSISTENCY, AUDIT_CONSISTENCY}:
        return _check_consistency(given, keys, BOOK if kind == CONSISTENCY else AUDIT_LOG)
    raise Wrong("neither a receipt, nor an act, nor a proof of consistency")


def _check_receipt(given: dict[str, Any], keys: Sequence[str]) -> list[str]:
    _, note, transfers = _exactly(given, "object", "checkpoint", "transfers")
    point = read_note(note, keys, BOOK)
    if not isinstance(transfers, list) or not transfers:
        raise Wrong("no transfers")
    return [_point_line(point), *(_check_transfer(each, point) for each in transfers)]


def _check_transfer(given: Any, point: dict[str, Any]) -> str:
    entry, code, code_proof, debit, credit, proof = _exactly(
        given, "entry", "code", "code_proof", "debit", "credit", "proof"
    )
    leaf, shown = _leaf(entry, debit, credit)
    if entry["book"] != point["book"]:
        raise Wrong("a transfer of another book")
    seq, number = entry["seq"], entry["code"]
    if not is_included(leaf, seq - 1, point["size"], point["root"], _hashes(proof)):
        raise Wrong(f"transfer {entry['id']} is not at place {seq} of the book")
    if not isinstance(code, str):
        raise Wrong("a code is a text")
    word = hashlib.sha256(b"\x00" + struct.pack(">i", number) + code.encode()).digest()
    if not is_included(word, number - 1, point["codes"], point["codes_root"], _hashes(code_proof)):
        raise Wrong(f"code {number} does not mean {code!r}")
    what = f"{entry['amount']} {entry['currency']} (minor units), {entry['kind']}, {code}"
    why = f"for {_base32(UUID(entry['reference']))}, on {entry['biz_date']}: {shown}"
    return f"proved: transfer {seq}, {what}, {why}"


def _check_audit_entry(given: dict[str, Any], keys: Sequence[str]) -> list[str]:
    names = ("object", "content", "number", "proof", "checkpoint")
    _, content, number, proof, note = _exactly(given, *names)
    point = read_note(note, keys, AUDIT_LOG)
    if not isinstance(content, str):
        raise Wrong("an act is a text")
    leaf = hashlib.sha256(b"\x00" + content.encode()).digest()
    if not is_included(leaf, _whole(number) - 1, point["size"], point["root"], _hashes(proof)):
        raise Wrong(f"this act is not at place {number} of the audit log")
    said = json.loads(content)
    what = f"{said['actor']} did {said['action']} to {said['subject']} at {said['real_at']}"
    facts = json.dumps(said["facts"], ensure_ascii=False)
    return [_point_line(point), f"proved: act {number}, {what}, from {said['origin']}: {facts}"]


def _check_consistency(given: dict[str, Any], keys: Sequence[str], log: str) -> list[str]:
    _, old_note, new_note, proof = _exactly(given, "object", "old", "new", "proof")
    old, new = read_note(old_note, keys, log), read_note(new_note, keys, log)
    if old["origin"] != new["origin"]:
        raise Wrong("two different logs")
    sizes, roots = (old["size"], new["size"]), (old["root"], new["root"])
    if not is_consistent(sizes, roots, _hashes(proof)):
        raise Wrong(f"the log of {sizes[1]} entries does not begin as that of {sizes[0]}")
    proved = f"proved: the first {sizes[0]} of {sizes[1]} entries are unchanged"
    return [_point_line(old), _point_line(new), proved]


def _leaf(entry: Any, debit: Any, credit: Any) -> tuple[bytes, str]:
    """Return the leaf's hash, made again from the words of the receipt, and what it shows."""
    names = ("book", "seq", "id", "amount", "currency", "kind", "flags", "code", "reference")
    values = _exactly(entry, *names, "pending_id", "biz_date", "value_date", "at")
    book, seq, id_, amount, currency, kind, flags, code, reference = values[:9]
    pending, biz_date, value_date, at = values[9:]
    if kind not in KINDS or not isinstance(currency, str):
        raise Wrong("no such kind of transfer")
    sides = [_side(debit), _side(credit)]
    try:
        packed = ENTRY.pack(
            *(_whole(book), _whole(seq), _uuid(id_), _whole(amount), KINDS[kind], _whole(flags)),
            *(_whole(code), _uuid(reference), _uuid(pending, or_none=True)),
            *(_days(biz_date), _days(value_date), _microseconds(at)),
            *(currency.encode("ascii"), sides[0][0], sides[1][0]),
        )
    except (struct.error, UnicodeEncodeError):
        raise Wrong("a number or currency does not fit") from None
    if len(currency) != len("CNY"):
        raise Wrong("no currency")
    shown = f"debit {sides[0][1]}, credit {sides[1][1]}"
    return hashlib.sha256(b"\x00" + packed).digest(), shown


def _side(given: Any) -> tuple[bytes, str]:
    """Return the commitment to one side of a transfer, made again when the side is open."""
    if isinstance(given, dict) and set(given) == {"sealed"}:
        return _bytes(given["sealed"], 32), "sealed"
    names = ("salt", "account", "owner", "kind", "previous", "after")
    salt, account, owner, kind, previous, after = _exactly(given, *names)
    if not isinstance(kind, str):
        raise Wrong("no kind of account")
    try:
        content = _bytes(salt, 16) + struct.pack(">q", _whole(account))
        content += _uuid(previous, or_none=True) + struct.pack(">q", _whole(after))
    except struct.error:
        raise Wrong("a number does not fit") from None
    owner_bytes = _uuid(owner, or_none=True)
    commitment = hashlib.sha256(b"\x02" + content + owner_bytes + kind.encode()).digest()
    of = "" if owner is None else " of " + _base32(UUID(owner))
    return commitment, f"{kind}{of} (account {account}, balance after: {after})"


# Signed notes


def read_note(note: Any, keys: Sequence[str], log: str = BOOK) -> dict[str, Any]:
    """Return what a checkpoint of this kind of log says, if every one of the keys has signed it."""
    if not isinstance(note, str) or note.count("\n\n") != 1 or not note.endswith("\n"):
        raise Wrong("not a signed note")
    body, _, signatures = note.partition("\n\n")
    body += "\n"
    if not keys:
        raise Wrong("no key to trust was given")
    for key in keys:
        name = _check_signed(body, signatures.splitlines(), key)
        if not body.startswith(name + "/"):
            raise Wrong("the note is of another log")
    return _read_body(body, log)


def _check_signed(body: str, lines: Sequence[str], key: str) -> str:
    """Return the name of a key that has signed."""
    parts = key.strip().split("+", 2)
    if len(parts) != 3:
        raise Wrong("a key has three parts: name+id+key")
    name, key_id, raw = parts[0], parts[1], _base64(parts[2])
    if hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() != key_id:
        raise Wrong(f"the key {key_id} is damaged")
    for line in lines:
        words = line.split(" ")
        if len(words) != 3 or words[0] != "\u2014":
            raise Wrong("a line among the signatures is none")
        signature = _base64(words[2])
        if words[1] != name or signature[:4].hex() != key_id:
            continue
        if _is_signed(raw, body.encode(), signature[4:]):
            return name
        raise Wrong(f"the signature of {key_id} is not its own")
    raise Wrong(f"key {key_id} has not signed")


def _is_signed(raw: bytes, message: bytes, signature: bytes) -> bool:
    if raw.startswith(SM2_TYPE):
        return sm2_verify(raw[len(SM2_TYPE) :], message, signature)
    if raw.startswith(ED25519_TYPE):
        return ed25519_verify(raw[1:], message, signature)
    raise Wrong("a key of an unknown kind")


_NUMBERS = ("book", "size", "batch", "codes")
_ROOTS = ("root", "head", "codes_root")


def _read_body(body: str, log: str) -> dict[str, Any]:
    found = re.fullmatch(log, body)
    if found is None:
        raise Wrong("the note is no checkpoint of such a log")
    said: dict[str, Any] = found.groupdict()
    said.update({name: int(said[name]) for name in _NUMBERS if name in said})
    said.update({name: _bytes(said[name], 32) for name in _ROOTS if name in said})
    return said


def _point_line(point: dict[str, Any]) -> str:
    return f"signed: {point['origin']}, {point['size']} entries, as of {point['time']}"


# Merkle trees (RFC 9162, 2.1)


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def is_included(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether a leaf is at an index of the tree."""
    if not 0 <= index < size:
        return False
    found = _climb(index, size - 1, leaf, proof)
    return found is not None and found[1] == root


def is_consistent(
    sizes: tuple[int, int], roots: tuple[bytes, bytes], proof: Sequence[bytes]
) -> bool:
    """Tell whether the second tree begins with the first."""
    if not 0 < sizes[0] <= sizes[1]:
        return False
    if sizes[0] == sizes[1]:
        return not proof and roots[0] == roots[1]
    path = list(proof) if sizes[0] & (sizes[0] - 1) else [roots[0], *proof]
    place, last = sizes[0] - 1, sizes[1] - 1
    while place % 2:
        place, last = place // 2, last // 2
    return bool(path) and _climb(place, last, path[0], path[1:]) == roots


def _climb(
    place: int, last: int, start: bytes, path: Sequence[bytes]
) -> tuple[bytes, bytes] | None:
    """Return the roots a path leads to: of the tree that ends at the place, and of the whole."""
    old = new = start
    for sibling in path:
        if last == 0:
            return None
        if place % 2 or place == last:
            old, new = _node(sibling, old), _node(sibling, new)
            while place % 2 == 0 and place:
                place, last = place // 2, last // 2
        else:
            new = _node(new, sibling)
        place, last = place // 2, last // 2
    return (old, new) if last == 0 else None


# Ed25519 (RFC 8032)

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_Point = tuple[int, int, int, int]


@functools.lru_cache(maxsize=64)
def ed25519_verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the key's owner signed the message."""
    if len(key) != 32 or len(signature) != 64:
        return False
    point, commitment = _ed_decode(key), _ed_decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if point is None or commitment is None or s >= _L:
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    h = int.from_bytes(digest, "little") % _L
    base = _ed_decode((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
    if base is None:
        return False
    left, right = _ed_times(s, base), _ed_add(commitment, _ed_times(h, point))
    return (
        (left[0] * right[2] - right[0] * left[2]) % _P
        == 0
        == (left[1] * right[2] - right[1] * left[2]) % _P
    )


def _ed_decode(text: bytes) -> _Point | None:
    y = int.from_bytes(text, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x % 2 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _ed_add(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _ed_times(number: int, point: _Point) -> _Point:
    total = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = _ed_add(total, point)
        point, number = _ed_add(point, point), number >> 1
    return total


# SM2 with SM3 (GB/T 32918, GB/T 32905)

_Q = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
_N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
_A = _Q - 3
_B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
_GX = 0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7
_GY = 0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0


@functools.lru_cache(maxsize=64)
def sm2_verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the key's owner signed the message, under the standard's default id."""
    if len(key) != 65 or key[0] != 4 or len(signature) != 64:
        return False
    x, y = int.from_bytes(key[1:33], "big"), int.from_bytes(key[33:], "big")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if max(x, y) >= _Q or (y * y - x * x * x - _A * x - _B) % _Q:
        return False
    total = (r + s) % _N
    if not 0 < r < _N or not 0 < s < _N or total == 0:
        return False
    numbers = b"".join(each.to_bytes(32, "big") for each in (_A, _B, _GX, _GY, x, y))
    owner = sm3(b"\x00\x80" + b"1234567812345678" + numbers)
    digest = int.from_bytes(sm3(owner + message), "big")
    point = _sm2_add(_sm2_times(s, (_GX, _GY)), _sm2_times(total, (x, y)))
    return point is not None and (digest + point[0]) % _N == r


def _sm2_add(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    if one is None or other is None:
        return other if one is None else one
    if one[0] == other[0]:
        if (one[1] + other[1]) % _Q == 0:
            return None
        slope = (3 * one[0] * one[0] + _A) * pow(2 * one[1], _Q - 2, _Q) % _Q
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], _Q - 2, _Q) % _Q
    x = (slope * slope - one[0] - other[0]) % _Q
    return x, (slope * (one[0] - x) - one[1]) % _Q


def _sm2_times(number: int, point: tuple[int, int] | None) -> tuple[int, int] | None:
    total: tuple[int, int] | None = None
    while number:
        if number & 1:
            total = _sm2_add(total, point)
        point, number = _sm2_add(point, point), number >> 1
    return total


def sm3(message: bytes) -> bytes:
    """Return the SM3 digest; not every Python's hashlib has it."""
    state = list(struct.unpack(">8I", bytes.fromhex(_SM3_START)))
    padded = message + b"\x80" + bytes(-(len(message) + 9) % 64)
    padded += struct.pack(">Q", 8 * len(message))
    for start in range(0, len(padded), 64):
        mixed = _sm3_block(state, padded[start : start + 64])
        state = [old ^ new for old, new in zip(state, mixed)]  # noqa: B905 - Python 3.9
    return struct.pack(">8I", *state)


_SM3_START = "7380166f4914b2b9172442d7da8a0600a96f30bc163138aae38dee4db0fb0e4e"


def _turn(word: int, by: int) -> int:
    by %= 32
    return ((word << by) | (word >> (32 - by))) & 0xFFFFFFFF


def _sm3_block(state: Sequence[int], block: bytes) -> list[int]:
    w = list(struct.unpack(">16I", block))
    for i in range(16, 68):
        x = w[i - 16] ^ w[i - 9] ^ _turn(w[i - 3], 15)
        w.append(x ^ _turn(x, 15) ^ _turn(x, 23) ^ _turn(w[i - 13], 7) ^ w[i - 6])
    a, b, c, d, e, f, g, h = state
    for i in range(64):
        early = i < 16
        constant = 0x79CC4519 if early else 0x7A879D8A
        one = _turn((_turn(a, 12) + e + _turn(constant, i)) & 0xFFFFFFFF, 7)
        two = one ^ _turn(a, 12)
        ff = a ^ b ^ c if early else (a & b) | (a & c) | (b & c)
        gg = e ^ f ^ g if early else (e & f) | (~e & g)
        left = (ff + d + two + (w[i] ^ w[i + 4])) & 0xFFFFFFFF
        right = (gg + h + one + w[i]) & 0xFFFFFFFF
        a, b, c, d = left, a, _turn(b, 9), c
        e, f, g, h = right ^ _turn(right, 9) ^ _turn(right, 17), e, _turn(f, 19), g
    return [a, b, c, d, e, f, g, h]


# Strict readings: each value has one way to be written


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)


def _exactly(given: Any, *names: str) -> list[Any]:
    if not isinstance(given, dict) or set(given) != set(names):
        raise Wrong("expected exactly: " + ", ".join(names))
    return [given[name] for name in names]


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise Wrong(f"not a whole number: {value!r}")
    return value


def _one_way(text: Any, read: Callable[[Any], Any], write: Callable[[Any], str], what: str) -> Any:
    try:
        found = read(text)
    except (ValueError, TypeError, AttributeError):
        raise Wrong(f"not {what}") from None
    if write(found) != text:
        raise Wrong(f"not the one way to write {what}")
    return found


def _base64(text: Any) -> bytes:
    read = functools.partial(base64.b64decode, validate=True)
    return bytes(_one_way(text, read, lambda raw: base64.b64encode(raw).decode(), "base64"))


def _bytes(text: Any, length: int) -> bytes:
    raw = _base64(text)
    if len(raw) != length:
        raise Wrong(f"{length} bytes expected")
    return raw


def _hashes(texts: Any) -> list[bytes]:
    if not isinstance(texts, list):
        raise Wrong("a proof is a list")
    return [_bytes(text, 32) for text in texts]


def _uuid(text: Any, *, or_none: bool = False) -> bytes:
    if text is None and or_none:
        return NOTHING
    return bytes(_one_way(text, UUID, str, "an id").bytes)


def _days(text: Any) -> int:
    found = _one_way(text, date.fromisoformat, date.isoformat, "a day")
    return int((found - EPOCH.date()).days)


def _microseconds(text: Any) -> int:
    found: datetime = _one_way(
        text,
        lambda given: datetime.strptime(given, "%Y-%m-%dT%H:%M:%S.%f%z"),
        lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "a time",
    )
    return (found - EPOCH) // timedelta(microseconds=1)


def _base32(value: UUID) -> str:
    """Return the letters that stand behind the prefix of an id, as in pay_01hx…."""
    return "".join(LETTERS[value.int >> 5 * place & 31] for place in range(25, -1, -1))


def main(arguments: Sequence[str]) -> int:
    """Check the file named first by the keys named after it."""
    if len(arguments) < 2:
        sys.stderr.write(__doc__ or "")
        return 2
    with open(arguments[0], encoding="utf-8") as file:  # noqa: PTH123 - one import less
        text = file.read()
    try:
        proved = check(text, arguments[1:])
    except Wrong as wrong:
        sys.stderr.write(f"NOT PROVED: {wrong}\n")
        return 1
    sys.stdout.write("\n".join(proved) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
