"""The bytes of the journal: PostgreSQL reads what was decided, and gives the same bytes back."""

from __future__ import annotations

from datetime import date, timedelta
from hashlib import sha256
from struct import pack
from uuid import UUID

import numpy as np
from msgspec import Struct

from tests.ledger.decision.making import group, new, pending, post, single, void
from tests.ledger.decision.world import NOW, Poster, Store
from tests.ledger.drawing import BANK, PAYABLE, WALLETS
from tongbao.infra.db import Query
from tongbao.ledger.decision.encoding import (
    JOURNAL_COLUMNS,
    batch_digest,
    chain_hash,
    copy_payload,
    journal_of,
)
from tongbao.ledger.decision.records import JOURNAL, ids_of
from tongbao.ledger.rows import LedgerTransfer

ALICE, BOB = WALLETS
STORED = Query(
    LedgerTransfer,
    """
    select book, id, seq, debit_account, credit_account, amount, kind, flags, code, reference,
           pending_id, debit_previous, credit_previous, debit_after, credit_after, biz_date,
           value_date, at
      from ledger_transfer order by seq""",
)


def journals():
    """Journals with every mixture of missing ids: none, some and all, column by column."""
    hold, other = pending(10, ALICE, PAYABLE), pending(3, ALICE, BOB)
    back_dated = single(2, ALICE, PAYABLE, value_date=date(1999, 12, 31), at_most=True)
    poster = Poster(Store())
    for groups in (
        [group(single(100, BANK, ALICE))],
        [group(hold, other, id=new()), group(single(1, BANK, BOB))],
        [group(post(hold, 4)), group(void(other), back_dated), group(single(1, BANK, PAYABLE))],
        [group(single(2, BANK, ALICE)), group(single(2, ALICE, BOB))],
        [group(single(10**9, ALICE, BOB))],
    ):
        plan = poster.decide(groups, NOW + timedelta(microseconds=7))
        assert poster.commit(plan)
        yield plan.decision.journal


async def test_what_is_copied_into_the_table_is_read_back_byte_for_byte(db):
    written = [*journals()]
    async with db.begin("tests") as tx:
        for journal in written:
            payload = copy_payload(journal)
            count = await tx.copy_binary("ledger_transfer", JOURNAL_COLUMNS, payload)
            assert count == len(journal)
        rows = await STORED.all(tx)
    assert [row.seq for row in rows] == [*range(1, sum(map(len, written)) + 1)]
    assert journal_of(rows).tobytes() == b"".join(journal.tobytes() for journal in written)
    assert {row.value_date for row in rows} == {date(1999, 12, 31), NOW.date()}
    assert {row.at for row in rows} == {NOW + timedelta(microseconds=7)}
    assert rows[0].debit_previous is None
    assert rows[0].pending_id is None
    assert [row.pending_id is not None for row in rows] == [row.kind >= 3 for row in rows]


def test_an_empty_journal_is_an_empty_copy():
    payload = copy_payload(np.empty(0, JOURNAL))
    assert payload == b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff"


class Answer(Struct):
    id: bytes
    body_hash: bytes
    status: str
    code: str | None
    seq: int | None
    transfer_count: int


def test_the_digest_of_a_batch_is_of_its_transfers_and_its_answers():
    journal = [*journals()][1]
    refused = Answer(b"r" * 16, b"h" * 32, "refused", "ledger.exceeds_balance", None, 0)
    created = Answer(b"c" * 16, b"b" * 32, "created", None, 9, 2)
    written_out = (
        journal.tobytes()
        + (b"c" * 16 + b"b" * 32 + b"\0" + b"\0\0" + pack(">qi", 9, 2))
        + (b"r" * 16 + b"h" * 32 + b"\1" + b"\0\x16ledger.exceeds_balance" + pack(">qi", 0, 0))
    )
    assert batch_digest(journal, [refused, created]) == sha256(written_out).digest()
    assert batch_digest(journal, [created, refused]) == sha256(written_out).digest()
    assert batch_digest(journal, [created]) != sha256(written_out).digest()


def test_a_batch_hangs_on_the_one_before_it():
    digest = sha256(b"batch").digest()
    expected = sha256(bytes(32) + (7).to_bytes(8, "big") + digest).digest()
    assert chain_hash(bytes(32), 7, digest) == expected


def test_the_canonical_bytes_of_a_transfer_never_change():
    row = LedgerTransfer(
        1, UUID(int=1), 2, 3, 4, 5, 3, 6, 7, UUID(int=8), UUID(int=9), None, UUID(int=10), -11, 12,
        date(1970, 1, 2), date(1969, 12, 31), NOW,
    )  # fmt: skip
    written_out = (
        pack(">i", 1)
        + UUID(int=1).bytes
        + pack(">qqqqhhi", 2, 3, 4, 5, 3, 6, 7)
        + ids_of(UUID(int=one).bytes for one in (8, 9, 0, 10)).tobytes()
        + pack(">qqiiq", -11, 12, 1, -1, 1_772_380_799_000_000)
    )
    assert journal_of([row]).tobytes() == written_out
