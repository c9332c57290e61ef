"""Recorded answers laid beside the transfers: every group whole, and as it was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import combinations
from struct import Struct as Packing
from typing import Any, Final

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
_ASKED_FLAGS: Final = TransferFlags.WHOLE | TransferFlags.AT_MOST


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
        refused = np.flatnonzero((rows["status"] == _REFUSED) & (rows["transfer_seq"] > 0))
        self._shadowed = {int(rows["transfer_seq"][at]): int(at) for at in refused}

    def count_of(self, batch: int) -> int:
        """Return how many answers a batch recorded."""
        begin, end = self._range(batch)
        return end - begin

    def packed_of(self, batch: int) -> bytes:
        """Return the answers of a batch as the bytes that its digest is of."""
        begin, end = self._range(batch)
        return b"".join(_packed(row) for row in self._rows[begin:end])

    def take(self, rows: Records, batches: Whole) -> None:
        """Lay the answers beside the transfers of whole batches, whose numbers are ``batches``."""
        seqs = rows["seq"].astype(np.int64)
        end = int(np.searchsorted(self._last_seqs, seqs[-1], "right"))
        for at in self._moved[self._laid : end].tolist():
            self._lay(at, rows, seqs, batches)
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

    def _lay(self, at: int, rows: Records, seqs: Whole, batches: Whole) -> None:
        """Compare one answer with the transfers it names."""
        request = self._rows[at]
        count, last = int(request["transfer_count"]), int(request["seq"])
        end = int(np.searchsorted(seqs, last, "right"))
        begin = int(np.searchsorted(seqs, last - count + 1, "left"))
        group = rows[begin:end]
        if len(group) != count or not count or int(seqs[end - 1]) != last:
            what = f"the group has {len(group)} of its {count} transfers"
            self._found.add("requests", self._said(what)(at))
            return
        linked = ((group["flags"] & TransferFlags.LINKED) != 0).tolist()
        follows = begin > 0 and bool(rows["flags"][begin - 1] & TransferFlags.LINKED)
        if follows or linked != [True] * (count - 1) + [False]:
            self._found.add("requests", self._said("its transfers are linked another way")(at))
        elif (batches[begin:end] != request["batch"]).any():
            self._found.add("requests", self._said("its transfers are of another batch")(at))
        self._check_body(at, group)

    def _check_body(self, at: int, group: Records) -> None:
        """Compare the fingerprint with what must have been asked for.

        What "at most" asked for is not kept, so such a group has no fingerprint to compare.
        """
        if (group["flags"] & TransferFlags.AT_MOST).any():
            return
        self._found.look("bodies")
        kept = bytes(self._rows["body_hash"][at])
        if not any(sha256(_BODY_VERSION + body).digest() == kept for body in _bodies(group)):
            first = group[0]
            breach = Breach(
                "the transfers are not those that were asked for",
                batch=int(self._batches[at]),
                seq=int(first["seq"]),
                transfer=uuid_of(first["id"]),
                request=uuid_of(self._rows["id"][at]),
            )
            self._found.add("bodies", breach)

    def _check_shadows(self, rows: Records, seqs: Whole) -> None:
        """No group is refused whose id is that of the first transfer of a group on its own."""
        low, high = int(seqs[0]), int(seqs[-1])
        for seq in [seq for seq in self._shadowed if low <= seq <= high]:
            at = self._shadowed.pop(seq)
            place = int(np.searchsorted(seqs, seq))
            follows = place > 0 and rows["flags"][place - 1] & TransferFlags.LINKED
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


def _packed(row: Any) -> bytes:
    code = bytes(row["code"])[: int(row["code_length"])]
    head = bytes(row["id"]) + bytes(row["body_hash"])
    refused = row["status"] == _REFUSED
    return b"".join(
        (
            head,
            _ANSWER.pack(int(refused), len(code)),
            code,
            _MOVED.pack(int(row["seq"]), int(row["transfer_count"])),
        )
    )


def _bodies(group: Records) -> Iterator[bytes]:
    """Return what may have been asked for: whether a value date was named is not kept.

    A transfer whose value date is its accounting day may have named it or not.
    """
    may_have_named = [at for at, row in enumerate(group) if row["value_date"] == row["biz_date"]]
    yield _body(group, unnamed=may_have_named)
    if may_have_named:
        yield _body(group, unnamed=())
    if len(may_have_named) <= _GUESSES_MAX:
        for count in range(1, len(may_have_named)):
            for unnamed in combinations(may_have_named, count):
                yield _body(group, unnamed=unnamed)


def _body(group: Records, *, unnamed: Sequence[int]) -> bytes:
    return b"".join(_asked(row, named_value_date=at not in unnamed) for at, row in enumerate(group))


def _asked(row: Any, *, named_value_date: bool) -> bytes:
    names_accounts = row["kind"] in {TransferKind.SINGLE, TransferKind.PENDING}
    is_whole = bool(row["flags"] & TransferFlags.WHOLE)
    ends_without_amount = row["kind"] in {TransferKind.VOID, TransferKind.EXPIRE} or is_whole
    expires = 0 if row["nulls"] & _NO_EXPIRY else int(row["hold_expires_at"]) + _MICROSECONDS
    return _ASKED.pack(
        bytes(row["id"]),
        int(row["debit_account"]) if names_accounts else 0,
        int(row["credit_account"]) if names_accounts else 0,
        0 if ends_without_amount else int(row["amount"]),
        bytes(row["pending_id"]),
        bytes(row["reference"]),
        expires,
        int(row["value_date"]) + _DAYS if named_value_date else 0,
        int(row["code"]),
        int(row["kind"]),
        int(row["flags"]) & _ASKED_FLAGS,
    )
