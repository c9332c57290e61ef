"""Groups as columns: what is packed, what is refused on sight, and how refusals are numbered."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.ledger.decision.making import ending, group, new, pending, post, single
from tests.ledger.drawing import BANK, ODD, PAYABLE, WALLETS
from tongbao.kernel.errors import Busy
from tongbao.ledger.decision import records
from tongbao.ledger.decision.records import (
    COMMAND,
    COMPANION_REFUSED,
    CREATED,
    JOURNAL,
    NOT_RECORDED,
    REFUSALS,
    batch_of,
    body_hash,
    code_of,
    day_of,
    days,
    fronts,
    ids_of,
    is_recorded,
    microseconds,
    moment,
    refusal_of,
)
from tongbao.ledger.model import (
    AccountKey,
    AccountKindUnknown,
    AccountOwnerWrong,
    Group,
    Transfer,
    TransferAmountInvalid,
    TransferFlags,
    TransferKind,
    TransferMalformed,
)
from tongbao.ledger.rows import LedgerTransfer

ALICE, BOB = WALLETS
ACCOUNTS = {
    BANK: 11,
    ALICE: 12,
    BOB: 13,
    PAYABLE: 14,
    ODD[1]: AccountKindUnknown,
    ODD[2]: AccountOwnerWrong,
}
NUMBERS = {"test/leg": 7, "test/hold": 8, "test/end": 9}
AT = datetime(2026, 3, 1, 15, 59, 59, 123456, tzinfo=UTC)
A_TRANSFER = Transfer(
    id=UUID(int=1),
    kind=TransferKind.PENDING,
    code="test/hold",
    reference=UUID(int=2),
    amount=1000,
    debit=ALICE,
    credit=PAYABLE,
    expires_at=AT,
    value_date=date(2026, 2, 27),
)


def batch(*groups):
    return batch_of(groups, ACCOUNTS, NUMBERS)


def hash_of(*transfers):
    return batch(Group(UUID(int=5), 1, transfers)).body_hash(0)


def test_a_batch_has_every_field_in_its_column():
    hold = pending(10, ALICE, PAYABLE, expires_at=AT)
    rest = single(5, BANK, BOB, value_date=date(2026, 2, 27), at_most=True)
    written = batch(group(hold, post(hold)), group(), group(rest, id=new()))
    assert written.starts.tolist() == [0, 2, 2, 3]
    assert written.refused.tolist() == [CREATED] * 3
    first, second, third = written.records
    assert first["id"].tobytes() == hold.id.bytes == written.ids[0].tobytes()
    assert first["reference"].tobytes() == hold.reference.bytes
    assert (first["debit"], first["credit"], first["amount"]) == (12, 14, 10)
    assert (first["kind"], first["flags"], first["code"]) == (2, 0, 8)
    assert moment(int(first["expires_at"])) == AT
    assert (second["debit"], second["credit"], second["amount"]) == (0, 0, 0)
    assert (second["kind"], second["flags"]) == (3, TransferFlags.WHOLE)
    assert second["pending_id"].tobytes() == hold.id.bytes
    assert (third["flags"], day_of(int(third["value_date"]))) == (4, date(2026, 2, 27))


def test_no_groups_are_a_batch_too():
    nothing = batch()
    assert (len(nothing.records), nothing.starts.tolist(), len(nothing.ids)) == (0, [0], 0)


def test_what_cannot_be_written_as_columns_is_refused_on_sight_by_its_first_transfer():
    fine, hold = single(1, BANK, ALICE), pending(1, BANK, ALICE)
    refused = {
        TransferMalformed: [replace(fine, code=""), ending(TransferKind.VOID, hold, 5)],
        TransferAmountInvalid: [replace(fine, amount=10**30), replace(fine, amount=-(10**30))],
        AccountKindUnknown: [replace(fine, debit=ODD[1])],
        AccountOwnerWrong: [replace(fine, credit=ODD[2])],
    }
    for refusal, transfers in refused.items():
        for transfer in transfers:
            written = batch(group(fine, transfer, replace(fine, amount=0)), group(fine))
            assert written.refused.tolist() == [code_of(refusal), CREATED]


def test_the_fingerprint_of_a_body_never_changes():
    written_out = (
        b"tongbao.ledger.body/2\n"
        + UUID(int=1).bytes
        + (12).to_bytes(8, "little")
        + (14).to_bytes(8, "little")
        + (1000).to_bytes(8, "little")
        + bytes(16)
        + UUID(int=2).bytes
        + (1772380799123456).to_bytes(8, "little")
        + (20511).to_bytes(4, "little")
        + (8).to_bytes(4, "little")
        + b"\x02\x00"
    )
    assert hash_of(A_TRANSFER) == sha256(written_out).digest()
    assert hash_of() == body_hash(batch(group()).records)


@pytest.mark.parametrize(
    "change",
    [
        {"id": UUID(int=9)},
        {"kind": TransferKind.SINGLE},
        {"code": "test/leg"},
        {"code": ""},
        {"reference": UUID(int=9)},
        {"amount": 999},
        {"amount": 10**30},
        {"amount": None},
        {"debit": None},
        {"debit": BOB},
        {"debit": ODD[1]},
        {"debit": ODD[2]},
        {"credit": BANK},
        {"pending_id": UUID(int=9)},
        {"expires_at": AT + timedelta(microseconds=1)},
        {"expires_at": None},
        {"value_date": date(2026, 2, 28)},
        {"value_date": None},
        {"at_most": True},
    ],
)
def test_every_field_belongs_to_the_body(change):
    assert hash_of(replace(A_TRANSFER, **change)) != hash_of(A_TRANSFER)


def test_accounts_that_do_not_exist_are_told_apart():
    other = AccountKey("silver", "CNY")
    accounts = ACCOUNTS | {other: AccountKindUnknown}
    groups = [group(replace(A_TRANSFER, debit=key)) for key in (ODD[1], other)]
    written = batch_of(groups, accounts, NUMBERS)
    assert written.body_hash(0) != written.body_hash(1)


def test_the_order_of_transfers_belongs_to_the_body_and_the_zone_of_a_time_does_not():
    other = replace(A_TRANSFER, id=UUID(int=9))
    assert hash_of(A_TRANSFER, other) != hash_of(other, A_TRANSFER)
    local = replace(A_TRANSFER, expires_at=AT.astimezone())
    assert hash_of(local) == hash_of(A_TRANSFER)


def test_refusals_and_their_numbers_belong_together():
    assert len({*REFUSALS}) == len(REFUSALS) == len({refusal.code for refusal in REFUSALS})
    for refusal in REFUSALS:
        code = code_of(refusal)
        assert refusal_of(code) is refusal
        assert (code < 0) == issubclass(refusal, Busy)
        assert is_recorded(code) == (refusal not in NOT_RECORDED)
        assert not (issubclass(refusal, Busy) and is_recorded(code))
        assert abs(code) < COMPANION_REFUSED
    assert is_recorded(CREATED)
    assert is_recorded(COMPANION_REFUSED)


def test_numbers_that_have_travelled_stay_what_they_were():
    assert [code_of(refusal) for refusal in REFUSALS[:9]] == [-1, -2, 3, -4, 5, 6, 7, 8, 9]
    assert REFUSALS[19].code == "ledger.exceeds_balance"
    assert REFUSALS[29].code == "ledger.overloaded"


@pytest.mark.parametrize(
    "at", [AT, datetime(1969, 7, 20, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_times_and_dates_come_back(at):
    assert moment(microseconds(at)) == at
    assert day_of(days(at.date())) == at.date()


def test_the_front_of_an_id_orders_as_the_id_does():
    ids = sorted(
        one.bytes for one in (new(), UUID(int=0), UUID(int=(1 << 128) - 1), UUID(int=1 << 64))
    )
    front = fronts(ids_of(ids)).tolist()
    assert front == sorted(front) == [int.from_bytes(one[:8], "big") for one in ids]


def test_the_records_are_packed():
    assert COMMAND.itemsize == records._COMMAND.size == 90
    assert JOURNAL.itemsize == 156
    assert JOURNAL.names == LedgerTransfer.__struct_fields__
