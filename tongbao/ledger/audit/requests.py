"""Recorded answers laid beside the transfers: every group whole, and as it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import combinations
from struct import Struct as Packing
from typing import Final

import numpy as np

from tongbao.infra.columns import Records
from tongbao.ledger.audit.accounts import Whole
from tongbao.ledger.audit.findings import Breach, Findings, uuid_of
from tongbao.ledger.model import TransferFlags, TransferKind

_CREATED, _REFUSED = 1, 2
_NO_CODE, _NO_SEQ = 1, 2
_NO_EXPIRY: Final = 16
_DAYS: Final = 10_957
_MICROSECONDS: Final = _DAYS * 86_400_000_000
_HASH_BYTES: Final = 32
_CODE_BYTES_MAX: Final = 128
_GUESSES_MAX: Final = 10
# A transfer as it was asked for: little-endian, without what the ledger itself found out.
_ASKED: Final = Packing("<16sqqq16s16sqiiBB")
# An answer as digests have it, big-endian: after id and fingerprint, and after its code.
_ANSWER: Final = Packing(">BH")
_MOVED: Final = Packing(">qi")
_BODY_VERSION: Final = b"tongbao.ledger.body/2\n"
_LINKED, _AT_MOST = int(TransferFlags.LINKED), int(TransferFlags.AT_MOST)
_ASKED_FLAGS: Final = int(TransferFlags.WHOLE) | _AT_MOST


class Requests:
    """The answers of a book, by batch for the digests and by seq for the transfers."""

    def __init__(self, found: Findings, rows: Records) -> None:
        self._found = found
        self._rows = rows
        self._batches: Whole = rows["batch"].astype(np.int64)
        self.newest = max(rows["id"].tolist(), default=bytes(16))
        moved = np.flatnonzero((rows["nulls"] & _NO_SEQ) == 0)
        self._moved: Whole = moved[np.argsort(rows["seq"][moved], kind="stable")].astype(np.int64)
        self._last_seqs: Whole = rows["seq"][self._moved].astype(np.int64)
        self._laid = 0
        self._packed = _packed(rows)
        refused = np.flatnonzero((rows["status"] == _REFUSED) & (rows["transfer_seq"] > 0))
        self._shadowed = {int(rows["transfer_seq"][at]): int(at) for at in refused}

    def count_of(self, batch: int) -> int:
        """Return how many answers a batch recorded."""
        begin, end = self._range(batch)
        return end - begin

    def packed_of(self, batch: int) -> bytes:
        """Return the answers of a batch as the bytes that its digest is of."""
        begin, end = self._range(batch)
        return b"".join(self._packed[begin:end])

    def take(self, rows: Records, batches: Whole) -> None:
        """Lay the answers beside the transfers of whole batches, whose numbers are ``batches``."""
        seqs = rows["seq"].astype(np.int64)
        end = int(np.searchsorted(self._last_seqs, seqs[-1], "right"))
        if self._laid < end:
            lines = _Lines(rows)
            for at in self._moved[self._laid : end].tolist():
                self._lay(at, lines, seqs, batches)
        self._laid = max(self._laid, end)
        self._check_shadows(rows, seqs)

    def finish(self, batches: Records) -> None:
        """Check the answers by themselves, and name those whose transfers never came."""
        rows = self._rows
        self._found.look("requests", len(rows))
        for at in self._moved[self._laid :].tolist():
            self._found.add("requests", self._said("its transfers are not there")(at))
        has_code = (rows["nulls"] & _NO_CODE) == 0
        has_seq = (rows["nulls"] & _NO_SEQ) == 0
        refused = rows["status"] == _REFUSED
        checks = (
            ((rows["status"] == 0) | (has_code != refused), "it is neither created nor refused"),
            (has_seq != (rows["transfer_count"] > 0), "it has a number and no transfers"),
            (refused & has_seq, "it is refused and has transfers"),
            (rows["body_length"] != _HASH_BYTES, "its fingerprint is not 32 bytes long"),
            (rows["code_length"] > _CODE_BYTES_MAX, "its code is too long to be one"),
        )
        for broken, what in checks:
            self._found.add_where("requests", broken, self._said(what))
        known = np.searchsorted(batches["batch"], self._batches)
        known = np.minimum(known, max(len(batches) - 1, 0))
        lost = np.ones(len(rows), np.bool_)
        if len(batches):
            lost = (batches["batch"][known] != self._batches) | (batches["at"][known] != rows["at"])
        self._found.add_where("requests", lost, self._said("its batch or its time is another one"))

    def _range(self, batch: int) -> tuple[int, int]:
        begin = np.searchsorted(self._batches, batch, "left")
        return int(begin), int(np.searchsorted(self._batches, batch, "right"))

    def _lay(self, at: int, lines: _Lines, seqs: Whole, batches: Whole) -> None:
        """Compare one answer with the transfers it names."""
        request = self._rows[at]
        count, last = int(request["transfer_count"]), int(request["seq"])
        end = int(np.searchsorted(seqs, last, "right"))
        begin = int(np.searchsorted(seqs, last - count + 1, "left"))
        if end - begin != count or not count or int(seqs[end - 1]) != last:
            what = f"the group has {end - begin} of its {count} transfers"
            self._found.add("requests", self._said(what)(at))
            return
        flags = lines.flags[max(begin - 1, 0) : end]
        linked = [bool(each & _LINKED) for each in flags]
        if linked != [False] * (begin > 0) + [True] * (count - 1) + [False]:
            self._found.add("requests", self._said("its transfers are linked another way")(at))
        elif (batches[begin:end] != request["batch"]).any():
            self._found.add("requests", self._said("its transfers are of another batch")(at))
        if not any(each & _AT_MOST for each in lines.flags[begin:end]):
            self._check_body(at, lines, range(begin, end))

    def _check_body(self, at: int, lines: _Lines, group: range) -> None:
        """Compare the fingerprint with what must have been asked for.

        What "at most" asked for is not kept, so such a group has no fingerprint to compare.
        """
        self._found.look("bodies")
        kept = bytes(self._rows["body_hash"][at])
        bodies = _bodies(lines, group)
        if not any(sha256(_BODY_VERSION + body).digest() == kept for body in bodies):
            breach = Breach(
                "the transfers are not those that were asked for",
                batch=int(self._batches[at]),
                seq=lines.seq[group.start],
                transfer=uuid_of(lines.id[group.start]),
                request=uuid_of(self._rows["id"][at]),
            )
            self._found.add("bodies", breach)

    def _check_shadows(self, rows: Records, seqs: Whole) -> None:
        """No group is refused whose id is that of the first transfer of a group on its own."""
        low, high = int(seqs[0]), int(seqs[-1])
        for seq in [seq for seq in self._shadowed if low <= seq <= high]:
            at = self._shadowed.pop(seq)
            place = int(np.searchsorted(seqs, seq))
            follows = place > 0 and rows["flags"][place - 1] & _LINKED
            if not follows and not self._is_answered(seq):
                what = "it is refused, and its transfers are in the book"
                self._found.add("requests", self._said(what)(at))

    def _is_answered(self, seq: int) -> bool:
        """Whether a recorded answer, not its first transfer, stands for the group of a transfer."""
        place = int(np.searchsorted(self._last_seqs, seq))
        if place >= len(self._moved):
            return False
        request = self._rows[self._moved[place]]
        return bool(request["seq"] - request["transfer_count"] < seq)

    def _said(self, what: str) -> Callable[[int], Breach]:
        rows = self._rows
        return lambda at: Breach(
            what,
            batch=int(rows["batch"][at]),
            seq=int(rows["seq"][at]) or None,
            request=uuid_of(rows["id"][at]),
        )


class _Lines:
    """What was asked for of some transfers, as plain values: answers are compared one by one."""

    def __init__(self, rows: Records) -> None:
        kind, whole = rows["kind"], (rows["flags"] & TransferFlags.WHOLE) != 0
        names = (kind == TransferKind.SINGLE) | (kind == TransferKind.PENDING)
        without = (kind == TransferKind.VOID) | (kind == TransferKind.EXPIRE) | whole
        expires = rows["hold_expires_at"].astype(np.int64) + _MICROSECONDS
        self.id: list[bytes] = rows["id"].tolist()
        self.seq: list[int] = rows["seq"].tolist()
        self.flags: list[int] = rows["flags"].tolist()
        self.value_date: list[int] = (rows["value_date"].astype(np.int64) + _DAYS).tolist()
        self.is_usual: list[bool] = (rows["value_date"] == rows["biz_date"]).tolist()
        self._debit: list[int] = np.where(names, rows["debit_account"], 0).tolist()
        self._credit: list[int] = np.where(names, rows["credit_account"], 0).tolist()
        self._amount: list[int] = np.where(without, 0, rows["amount"]).tolist()
        self._pending_id: list[bytes] = rows["pending_id"].tolist()
        self._reference: list[bytes] = rows["reference"].tolist()
        self._expires: list[int] = np.where(rows["nulls"] & _NO_EXPIRY, 0, expires).tolist()
        self._code: list[int] = rows["code"].tolist()
        self._kind: list[int] = kind.tolist()

    def asked(self, at: int, *, named_value_date: bool) -> bytes:
        """Return one transfer as it was asked for."""
        return _ASKED.pack(
            self.id[at],
            self._debit[at],
            self._credit[at],
            self._amount[at],
            self._pending_id[at],
            self._reference[at],
            self._expires[at],
            self.value_date[at] if named_value_date else 0,
            self._code[at],
            self._kind[at],
            self.flags[at] & _ASKED_FLAGS,
        )


def _packed(rows: Records) -> list[bytes]:
    """Return the answers as the bytes that digests are of."""
    columns = ("id", "body_hash", "status", "code", "code_length", "seq", "transfer_count")
    return [
        b"".join(
            (
                id_,
                body_hash,
                _ANSWER.pack(status == _REFUSED, min(length, _CODE_BYTES_MAX)),
                code[:length],
                _MOVED.pack(seq, count),
            )
        )
        for id_, body_hash, status, code, length, seq, count in zip(
            *(rows[name].tolist() for name in columns), strict=True
        )
    ]


def _bodies(lines: _Lines, group: range) -> Iterator[bytes]:
    """Return what may have been asked for: whether a value date was named is not kept.

    A transfer whose value date is its accounting day may have named it or not.
    """
    may_have_named = [at for at in group if lines.is_usual[at]]
    yield _body(lines, group, unnamed=frozenset(may_have_named))
    if may_have_named:
        yield _body(lines, group, unnamed=frozenset())
    if len(may_have_named) <= _GUESSES_MAX:
        for count in range(1, len(may_have_named)):
            for unnamed in combinations(may_have_named, count):
                yield _body(lines, group, unnamed=frozenset(unnamed))


def _body(lines: _Lines, group: range, *, unnamed: frozenset[int]) -> bytes:
    return b"".join(lines.asked(at, named_value_date=at not in unnamed) for at in group)
