"""The commits of a book: which transfers and answers each has, and how it hangs on the one before.

A batch's digest is SHA-256 over the packed rows of its transfers in order of seq, then its recorded
answers; its hash is SHA-256 over the hash before it, its number and its digest. Both are computed
here from the rows as they are stored, by a definition of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from struct import Struct as Packing
from typing import Final

import numpy as np

from tongbao.infra.columns import Records
from tongbao.ledger.audit._store import STORED_FIELDS
from tongbao.ledger.audit.accounts import Closings, Whole
from tongbao.ledger.audit.findings import Breach, Findings, uuid_of
from tongbao.ledger.audit.requests import Requests
from tongbao.ledger.model import SPAN_GAP_MS, TransferFlags
from tongbao.ledger.rows import LedgerBook, LedgerWatermark

# What PostgreSQL counts from 2000 and the packed record from 1970.
_DAYS: Final = 10_957
_MICROSECONDS: Final = _DAYS * 86_400_000_000
_PACKED: Final = np.dtype(list(STORED_FIELDS))
# How PostgreSQL sends an array: dimensions, whether it has nulls, of what; then of each dimension
# how long it is and where it begins. An empty one has none.
_ARRAY: Final = Packing(">iii")
_DIMENSION: Final = Packing(">ii")
_ELEMENT: Final = np.dtype([("length", ">i4"), ("id", "V16")])
_OF_UUID: Final = 2950
_AFTER_TIME: Final = np.uint64(16)  # the bits of an id's first half behind its milliseconds
_DAY_US: Final = 86_400_000_000
_SHANGHAI_US: Final = 8 * 3_600_000_000  # ahead of UTC, without summer time
_BEFORE_THE_FIRST: Final = bytes(32)


def packed(rows: Records) -> Records:
    """Return transfers as the records that digests are of."""
    made = np.empty(len(rows), _PACKED)
    for name, _ in STORED_FIELDS:
        made[name] = rows[name]
    for name in ("biz_date", "value_date"):
        made[name] = rows[name].astype(np.int64) + _DAYS
    made["at"] = rows["at"].astype(np.int64) + _MICROSECONDS
    return made


class Batches:
    """The batches of a book in order, and how far the journal has been laid beside them."""

    def __init__(
        self,
        found: Findings,
        rows: Records,
        requests: Requests,
        closings: Closings,
        *,
        begins_after: int = 0,
    ) -> None:
        """Take the commits; those up to ``begins_after`` have something in the archive.

        They still hang on each other, but what is in them cannot be looked at.
        """
        self._found = found
        self._rows = rows
        self._requests = requests
        self._closings = closings
        self._numbers: list[int] = rows["batch"].tolist()
        # A batch begins no earlier than the one before it, whatever its row says.
        self._firsts: Whole = np.maximum.accumulate(rows["first_seq"].astype(np.int64))
        self._next = int(np.searchsorted(rows["batch"].astype(np.int64), begins_after, "right"))
        before = rows["highest_id"][: self._next]
        self._newest = max(before.tolist(), default=bytes(16))
        self._is_all_before = 0 < self._next == len(rows)

    def whole(self, rows: Records) -> int:
        """Return how many of the rows are of batches that end before the last row's."""
        if not len(rows) or not len(self._rows):
            return len(rows)
        index = self._index(rows[-1:])[0]
        return int(np.searchsorted(rows["seq"].astype(np.int64), self._firsts[index]))

    def take(self, rows: Records) -> None:
        """Check the transfers of whole batches, the next ones in order."""
        if not len(rows):
            return
        index = self._index(rows)
        self._check_ends_of_groups(rows, index)
        if not len(self._rows):
            return
        batches = self._rows["batch"][np.maximum(index, 0)].astype(np.int64)
        self._check_dates(rows, index, batches)
        self._requests.take(rows, batches)
        last = int(index[-1])
        begins = np.searchsorted(index, np.arange(self._next, last + 2))
        spans, span_begins = _spans(rows["id"], index, range(self._next, last + 1))
        made = memoryview(packed(rows).tobytes())
        size = _PACKED.itemsize
        for place, batch in enumerate(range(self._next, last + 1)):
            begin, end = int(begins[place]), int(begins[place + 1])
            self._check_batch(
                batch, end - begin, spans[span_begins[place] : span_begins[place + 1]]
            )
            self._check_digest(batch, made[begin * size : end * size])
        self._next = max(self._next, last + 1)

    def finish(self, head: LedgerBook, watermark: LedgerWatermark | None) -> None:
        """Check the batches without transfers at the end, and the chain up to the head."""
        for batch in range(self._next, len(self._rows)):
            self._check_batch(batch, 0, np.zeros(0, _ELEMENT))
            self._check_digest(batch, memoryview(b""))
        self._check_order(head)
        self._check_chain(head)
        self._requests.finish(self._rows)
        newest = max(self._newest, self._requests.newest)
        if head.newest_id.bytes != newest and not self._is_all_before:
            what = f"the head says {head.newest_id} is the newest id, it is {uuid_of(newest)}"
            self._found.add("batches", Breach(what, transfer=uuid_of(newest)))
        self._check_watermark(watermark)

    def _index(self, rows: Records) -> Whole:
        found = np.searchsorted(self._firsts, rows["seq"].astype(np.int64), "right") - 1
        return found.astype(np.int64)

    def _check_dates(self, rows: Records, index: Whole, batches: Whole) -> None:
        """The accounting day is that of the moment, or the first one open in the commit."""
        late = rows["at"] != self._rows["at"][np.maximum(index, 0)]
        self._found.look("dates", len(rows))
        self._found.add_where("dates", late, _said(rows, "its moment is not that of its commit"))
        day = (rows["at"].astype(np.int64) + _SHANGHAI_US) // _DAY_US
        day = np.maximum(day, self._closings.first_open(batches))
        what = "its accounting day is neither that of its moment nor the first open one"
        self._found.add_where("dates", rows["biz_date"] != day, _said(rows, what))

    def _check_ends_of_groups(self, rows: Records, index: Whole) -> None:
        """A group lies within one batch, so the last transfer of a batch is linked to no other."""
        outside = index < 0
        what = "no batch has it"
        self._found.add_where("batches", outside, _said(rows, what))
        last = np.append(index[1:] != index[:-1], True)
        linked = (rows["flags"] & TransferFlags.LINKED) != 0
        what = "it is linked to the transfer after it, which is of another batch"
        self._found.add_where("requests", last & linked, _said(rows, what))
        follows = (rows["flags"] & TransferFlags.FOLLOWS) != 0
        before = np.append(False, linked[:-1])  # whole batches come: the first begins one
        what = "it and the transfer before it do not agree on whether they are one group"
        self._found.add_where("requests", follows != before, _said(rows, what))

    def _check_batch(self, batch: int, transfers: int, spans: Records) -> None:
        row = self._rows[batch]
        number = self._numbers[batch]
        self._found.look("batches")
        if transfers != row["transfers"]:
            self._add("batches", batch, f"it has {transfers} of its {row['transfers']} transfers")
        if bytes(row["spans"]) != _fingerprint(spans):
            self._add("batches", batch, "its ids lie in other stretches than it says")
        self._newest = max([self._newest, *spans["id"][-1:].tolist()])
        answers = self._requests.count_of(number)
        if answers != row["requests"]:
            self._add("batches", batch, f"it has {answers} of its {row['requests']} answers")

    def _check_digest(self, batch: int, transfers: memoryview) -> None:
        row = self._rows[batch]
        self._found.look("digests")
        digest = sha256(transfers)
        digest.update(self._requests.packed_of(self._numbers[batch]))
        if digest.digest() != bytes(row["digest"]) or row["digest_length"] != digest.digest_size:
            self._add("digests", batch, "its transfers or answers are not those it was made of")

    def _check_order(self, head: LedgerBook) -> None:
        rows = self._rows
        number = rows["batch"].astype(np.int64)
        self._found.add_where(
            "batches",
            number != np.arange(1, len(rows) + 1),
            self._said("the batches are not numbered from 1 without a gap"),
        )
        ends = rows["first_seq"].astype(np.int64) + rows["transfers"]
        self._found.add_where(
            "batches",
            rows["first_seq"] != np.append(1, ends[:-1]),
            self._said("it does not begin where the one before it ends"),
        )
        epochs = rows["epoch"].astype(np.int64)
        self._found.add_where(
            "batches",
            (np.diff(epochs, prepend=0) < 0) | (epochs > head.epoch),
            self._said("its epoch is past, or has not begun"),
        )
        last = (int(number[-1]), int(ends[-1]) - 1) if len(rows) else (0, 0)
        if (head.last_batch, head.last_seq) != last:
            what = f"the head is at batch {head.last_batch}, seq {head.last_seq}; there is {last}"
            self._found.add("batches", Breach(what, batch=last[0], seq=last[1]))

    def _check_chain(self, head: LedgerBook) -> None:
        """Every hash is made of the one before it, so the head's stands for all of them."""
        before = _BEFORE_THE_FIRST
        stored = zip(
            self._numbers,
            self._rows["digest"].tolist(),
            self._rows["hash"].tolist(),
            self._rows["hash_length"].tolist(),
            strict=True,
        )
        self._found.look("batch_chain", len(self._rows))
        for batch, (number, digest, kept, length) in enumerate(stored):
            made = sha256(before + number.to_bytes(8, "big", signed=True) + digest).digest()
            if made != kept or length != len(made):
                self._add("batch_chain", batch, "it does not hang on the one before it")
            before = kept
        if head.head_hash != before:
            what = "the head's hash is not that of the last batch"
            self._found.add("batch_chain", Breach(what, batch=head.last_batch))

    def _check_watermark(self, watermark: LedgerWatermark | None) -> None:
        self._found.look("watermark")
        if watermark is None:
            self._found.add("watermark", Breach("the book has no watermark"))
            return
        place = int(np.searchsorted(np.array(self._numbers, np.int64), watermark.batch))
        seq = 0
        if watermark.batch:
            known = place < len(self._rows) and self._numbers[place] == watermark.batch
            row = self._rows[place] if known else None
            seq = -1 if row is None else int(row["first_seq"]) + int(row["transfers"]) - 1
        if watermark.seq != seq:
            what = f"the balances are at {watermark.seq}, which is not the end of their batch"
            self._found.add("watermark", Breach(what, batch=watermark.batch, seq=watermark.seq))

    def _said(self, what: str) -> Callable[[int], Breach]:
        return lambda at: Breach(
            what, batch=self._numbers[at], seq=int(self._rows["first_seq"][at])
        )

    def _add(self, check: str, batch: int, what: str) -> None:
        self._found.add(check, self._said(what)(batch))


def _spans(ids: Records, index: Whole, batches: range) -> tuple[Records, list[int]]:
    """Return the ends of every stretch of ids as array elements, and where each batch's begin.

    A stretch ends with its batch, or where the next id is later by more than the gap.
    """
    halves = ids.copy().view(">u8").reshape(-1, 2).astype(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0], index))
    times, of = (halves[order, 0] >> _AFTER_TIME).astype(np.int64), index[order]
    apart = (np.diff(of) != 0) | (np.diff(times) > SPAN_GAP_MS)
    firsts = np.append(0, apart.nonzero()[0] + 1)
    spans = np.empty(2 * len(firsts), _ELEMENT)
    spans["length"] = 16
    spans["id"][0::2] = ids[order[firsts]]
    spans["id"][1::2] = ids[order[np.append(firsts[1:], len(ids)) - 1]]
    begins = 2 * np.searchsorted(of[firsts], np.arange(batches.start, batches.stop + 1))
    return spans, begins.tolist()


def _fingerprint(spans: Records) -> bytes:
    """Return the SHA-256 of an array of ids as PostgreSQL sends it."""
    if not len(spans):
        return sha256(_ARRAY.pack(0, 0, _OF_UUID)).digest()
    head = _ARRAY.pack(1, 0, _OF_UUID) + _DIMENSION.pack(len(spans), 1)
    return sha256(head + spans.tobytes()).digest()


def _said(rows: Records, what: str) -> Callable[[int], Breach]:
    return lambda at: Breach(what, seq=int(rows["seq"][at]), transfer=uuid_of(rows["id"][at]))
