"""A file of transfers is checked row by row, let go by two people, and every row paid once."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.clearing.conftest import Day
from tests.clearing.test_settlement_batches import MAY
from tests.stage import new_number
from tongbao.clearing.payouts.files import take_answer
from tongbao.clearing.transfers import transfers as desk
from tongbao.clearing.transfers.model import (
    Destination,
    TransferBalanceTooLow,
    TransferFileMalformed,
    TransferItem,
)
from tongbao.clearing.transfers.paying import (
    SubmitTransfer,
    hear_from_bank,
    run_submit_transfer,
    take_back,
)
from tongbao.clearing.transfers.queries import batch_with_id, items_of_batch
from tongbao.clearing.transfers.rows import COLUMNS, check_file
from tongbao.controls.approvals.approvals import ApplyApproval, approve, run_apply
from tongbao.controls.approvals.model import Approvals, acts_of
from tongbao.infra import failpoints
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.infra.tasks import Lease
from tongbao.kernel.ids import new_id, parse
from tongbao.kernel.papers.sheets import csv_line
from tongbao.ledger.model import AccountKey
from tongbao.ledger.queries import balance_of
from tongbao.parties.merchants.merchants import SANDBOX_BOOK, set_state
from tongbao.parties.merchants.model import MerchantHeld, MerchantState
from tongbao_sdk.errors import Refused

GOOD, BAD_ACCOUNT = "6222020200112230009", "6222020200112230001"  # as the sandbox's bank has them
EVERYWHERE = set(Destination)
CRASHES = (
    "transfers.before_hold",
    "transfers.after_hold",
    "transfers.before_call",
    "transfers.after_call",
    "transfers.after_query",
    "transfers.before_outcome",
    "transfers.after_outcome",
)


def row(number: str, destination: str, payee: str, amount: str, **more: str) -> dict[str, str]:
    return {
        "number": number, "destination": destination, "payee": payee, "name": "张三", "bank": "",
        "amount": amount, "note": "佣金", **more,
    }  # fmt: skip


def table(*rows: dict[str, str]) -> str:
    return csv_line(COLUMNS) + "".join(
        ",".join(each[column] for column in COLUMNS) + "\r\n" for each in rows
    )


async def send(day: Day, *rows: dict[str, str], number: str | None = None) -> dict[str, Any]:
    """Upload a file as the merchant would."""
    client = day.stage.client
    send = client.transfer_batches.send
    return dict(await day.stage.call(send, number or new_number(), table(*rows)))


async def one_round(day: Day, batch_id: UUID, lease: Lease) -> None:
    """What the worker does with a batch that was let go, in this task."""
    await desk.run_transfer_batch(day.clearing, desk.RunTransferBatch(batch_id), lease)
    batch = await batch_with_id(day.db, batch_id)
    for item in (await items_of_batch(day.db, batch)).items:
        await run_submit_transfer(day.clearing, SubmitTransfer(item.book, item.id), lease)


async def two_rounds(day: Day, batch_id: UUID, lease: Lease) -> None:
    """In the second, what was sent is asked about."""
    await one_round(day, batch_id, lease)
    await one_round(day, batch_id, lease)


async def let_go(day: Day, batch: dict[str, Any]) -> UUID:
    acts = acts_of(*desk.bound_acts(day.db))
    async with day.db.begin("operator:anna") as tx:
        approval = await desk.propose_release(tx, parse("trb", batch["id"]), reason="pay day")
    async with day.db.begin("operator:bert") as tx:
        await approve(tx, acts, approval.id, digest=approval.digest.hex(), may=MAY)
    return approval.id


async def states(day: Day, batch: dict[str, Any]) -> list[str]:
    found = await batch_with_id(day.db, parse("trb", batch["id"]))
    page = await items_of_batch(day.db, found, limit=100)
    return [item.state.value for item in page.items]


async def test_a_batch_goes_everywhere_once_and_what_fails_comes_back(day: Day) -> None:
    await day.paid("alipay", 100_000)
    client = day.stage.client
    wallet = await day.stage.call(client.wallets.open, holder_name="李四")
    rows = [
        row("1", "bank", GOOD, "10.00"),
        row("2", "bank", BAD_ACCOUNT, "20.00"),
        row("3", "wallet", wallet["id"], "30.00"),
        row("4", "alipay", "2088722000000201", "40.00"),
    ]
    report = await send(day, *rows, number="B1")
    assert report["faults"] == []
    again = await send(day, *rows, number="B1")
    assert again["batch"]["id"] == report["batch"]["id"]
    with pytest.raises(Refused) as refused:
        await send(day, *rows[:2], number="B1")
    assert refused.value.code == "transfer_batch.number_taken"
    assert await states(day, report["batch"]) == ["listed"] * 4

    await let_go(day, report["batch"])
    for _ in range(4):
        await day.stage.advance(minutes=6)

    assert await states(day, report["batch"]) == ["succeeded", "failed", "succeeded", "succeeded"]
    batch = await batch_with_id(day.db, parse("trb", report["batch"]["id"]))
    assert batch.state == "done"
    wallet_key = AccountKey("wallet", "CNY", parse("wal", wallet["id"]))
    assert (await balance_of(day.db, SANDBOX_BOOK, wallet_key)).posted == 3_000
    merchant = day.stage.shop.merchant.id
    assert await day.booked("merchant_payable", merchant) == 100_000 - 800 - 1_000 - 3_000 - 4_000
    assert await day.booked("bank") == -1_000
    told = await day.db.fetch("select count(*) from event where type = 'transfer.ended'", ())
    assert told[0][0] == 4
    for kept in await day.db.fetch("select * from transfer_item", ()):
        assert GOOD not in str(kept)
        assert "张三" not in str(kept)
    await day.sound()


async def test_a_row_that_is_not_covered_is_refused_and_the_others_go_on(day: Day) -> None:
    await day.paid("alipay", 10_000)
    [first] = [row("1", "bank", GOOD, "60.00")]
    report = await send(day, first, row("2", "bank", GOOD, "30.00"))
    too_much = await send(day, row("1", "bank", GOOD, "500.00"))
    async with day.db.begin("operator:anna") as tx:
        with pytest.raises(TransferBalanceTooLow):
            await desk.propose_release(tx, parse("trb", too_much["batch"]["id"]), reason="try")
    other = await send(day, row("1", "bank", GOOD, "50.00"))
    await let_go(day, other["batch"])
    await let_go(day, report["batch"])  # covered when it was proposed, each by itself
    for _ in range(3):
        await day.stage.advance(minutes=6)

    ended = await states(day, other["batch"]) + await states(day, report["batch"])
    assert sorted(ended) == ["refused", "succeeded", "succeeded"]
    assert await day.booked("bank") in {-8_000, -9_000}
    await day.sound()


async def items(day: Day, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows as the merchant sees them."""
    pages = day.stage.client.transfer_batches.transfers
    return await day.stage.call(lambda: [dict(each) for each in pages(batch["id"])])


async def test_a_wechat_transfer_waits_for_its_payee_and_is_paid_once(day: Day) -> None:
    """Confirmed, refused there, overdue there; one after a call whose answer was lost."""
    await day.paid("wechat_pay", 100_000)
    report = await send(
        day,
        row("1", "wechat_pay", "oPayee000000000000000000001", "10.00"),
        row("2", "wechat_pay", "oPayee000000000000000000002", "20.00"),
        row("3", "wechat_pay", "oPayee000000000000000000003", "40.00"),
    )
    assert report["faults"] == []
    day.sandbox.fault("wechat", "transfer", "time_out_done", times=1)
    await let_go(day, report["batch"])
    await day.stage.advance(minutes=2)
    await day.stage.advance(minutes=6)

    assert await states(day, report["batch"]) == ["pending"] * 3
    shown = await items(day, report["batch"])
    assert [each["status"] for each in shown] == ["pending"] * 3
    opened = [each["next_action"]["package"] for each in shown if "next_action" in each]
    assert len(opened) >= 2, "all but the lost answer's say what opens the page"
    found = await batch_with_id(day.db, parse("trb", report["batch"]["id"]))
    numbers = [each.channel_number for each in (await items_of_batch(day.db, found)).items]
    await day.stage.control("wechat/transfer", number=numbers[0], action="confirm")
    await day.stage.control("wechat/transfer", number=numbers[1], action="fail")
    await day.stage.advance(hours=2)
    assert await states(day, report["batch"]) == ["succeeded", "failed", "pending"]
    await day.stage.advance(hours=25)  # nobody confirmed the third
    await day.stage.advance(hours=2)

    assert await states(day, report["batch"]) == ["succeeded", "failed", "failed"]
    merchant = day.stage.shop.merchant.id
    assert await day.booked("merchant_payable", merchant) == 100_000 - 800 - 1_000
    told = await day.db.fetch("select count(*) from event where type = 'transfer.ended'", ())
    assert told[0][0] == 3
    await day.sound()


async def test_the_channels_own_notice_ends_a_transfer_at_once(day: Day) -> None:
    """It is a reason to ask, once; without it the money is found by asking later."""
    await day.paid("wechat_pay", 100_000)
    names = [f"oPayee00000000000000000000{n}" for n in range(3)]
    report = await send(day, *(row(each[-1], "wechat_pay", each, "10.00") for each in names))
    await let_go(day, report["batch"])
    await day.stage.advance(minutes=2)
    found = await batch_with_id(day.db, parse("trb", report["batch"]["id"]))
    numbers = [each.channel_number for each in (await items_of_batch(day.db, found)).items]
    for number, fault in zip(numbers, ("doubled", "lost:15", ""), strict=True):
        if fault:
            day.sandbox.fault("wechat", "callback", fault, number=number)

    for number, action in zip(numbers, ("confirm", "confirm", "fail"), strict=True):
        await day.stage.control("wechat/transfer", number=number, action=action)
    await day.stage.idle()

    assert await states(day, report["batch"]) == ["succeeded", "pending", "failed"]
    told = await day.db.fetch("select count(*) from event where type = 'transfer.ended'", ())
    assert told[0][0] == 2
    await day.stage.advance(hours=2)
    assert await states(day, report["batch"]) == ["succeeded", "succeeded", "failed"]
    await day.sound()


async def test_a_merchant_takes_back_what_its_payee_has_not_confirmed(day: Day) -> None:
    """Who confirmed first has it; whoever dies after the channel heard finds it by asking."""
    await day.paid("wechat_pay", 100_000)
    report = await send(
        day,
        *(row(str(n), "wechat_pay", f"oPayee00000000000000000000{n}", "10.00") for n in range(3)),
        row("3", "alipay", "2088722000000201", "10.00"),
    )
    client, call = day.stage.client, day.stage.call
    shown = await items(day, report["batch"])
    with pytest.raises(Refused) as refused:
        await call(client.transfer_batches.take_back, shown[0]["id"])
    assert refused.value.code == "transfer.not_taken_back", "it was not let go"
    await let_go(day, report["batch"])
    await day.stage.advance(minutes=2)
    found = await batch_with_id(day.db, parse("trb", report["batch"]["id"]))
    rows = (await items_of_batch(day.db, found)).items
    await day.stage.control("wechat/transfer", number=rows[1].channel_number, action="confirm")
    failpoints.arm("transfers.after_take_back:raise")
    with pytest.raises(SimulatedCrash):
        await take_back(day.clearing, rows[2])
    failpoints.arm(None)

    back = await call(client.transfer_batches.take_back, shown[0]["id"])
    late = await call(client.transfer_batches.take_back, shown[1]["id"])

    assert (back["status"], late["status"]) == ("failed", "succeeded")
    assert await call(client.transfer_batches.take_back, shown[0]["id"]) == back
    for whose, code in (
        (client, "transfer.not_taken_back"),
        (day.stage.client_of(await day.stage.open_shop()), "transfer.not_found"),
    ):
        with pytest.raises(Refused) as refused:
            await call(whose.transfer_batches.take_back, shown[3]["id"])
        assert refused.value.code == code
    await day.stage.advance(hours=2)
    assert await states(day, report["batch"]) == ["failed", "succeeded", "failed", "succeeded"]
    merchant = day.stage.shop.merchant.id
    assert await day.booked("merchant_payable", merchant) == 100_000 - 800 - 2_000
    await day.sound()


async def test_a_transfer_that_comes_back_is_the_merchants_again_once(day: Day) -> None:
    await day.paid("alipay", 100_000)
    report = await send(
        day,
        row("1", "alipay", "2088722000000201", "40.00"),
        row("2", "bank", GOOD, "10.00"),
    )
    await let_go(day, report["batch"])
    for _ in range(3):
        await day.stage.advance(minutes=6)
    assert await states(day, report["batch"]) == ["succeeded", "succeeded"]
    batch = await batch_with_id(day.db, parse("trb", report["batch"]["id"]))
    to_alipay, to_bank = (await items_of_batch(day.db, batch)).items
    merchant = day.stage.shop.merchant.id
    before = await day.booked("merchant_payable", merchant)

    # Alipay says so when it is asked on the days after; a bank in the statement it sends.
    await day.stage.control("alipay/transfer", number=to_alipay.channel_number, state="refund")
    for _ in range(2):
        await day.stage.advance(days=1)
    assert to_bank.account_id is not None
    account = await day.clearing.flow.account(to_bank.account_id)
    where = str(account.secrets.debtor_account)  # type: ignore[attr-defined]
    for wrong, applied in ((True, 0), (False, 1), (False, 0)):
        content = statement_of_return(to_bank, where, amount="9.99" if wrong else "10.00")
        content += b"\n" * applied
        found = await take_answer(
            day.clearing, to_bank.account_id, content, actor="operator:anna",
            elsewhere=partial(hear_from_bank, day.clearing, to_bank.account_id),
        )  # fmt: skip
        assert found.applied == applied

    assert await states(day, report["batch"]) == ["returned", "returned"]
    assert await day.booked("merchant_payable", merchant) == before + 5_000
    assert await day.booked("bank") == 0
    ends = await day.db.fetch("select count(*) from event where type = 'transfer.ended'", ())
    assert ends[0][0] == 4, "each succeeded, and each came back"
    await day.sound()


def statement_of_return(item: TransferItem, account: str, *, amount: str) -> bytes:
    """A camt.053 in which the bank books a transfer on the credit side again."""
    return f"""<?xml version="1.0"?>
    <Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>
    <Acct><Id><Othr><Id>{account}</Id></Othr></Id></Acct>
    <Ntry><Amt Ccy="CNY">{amount}</Amt><CdtDbtInd>CRDT</CdtDbtInd>
    <Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>2026-11-25</Dt></BookgDt><AcctSvcrRef>R77</AcctSvcrRef>
    <NtryDtls><TxDtls><Refs><EndToEndId>{item.channel_number}</EndToEndId></Refs></TxDtls>
    </NtryDtls></Ntry></Stmt></BkToCstmrStmt></Document>""".encode()


@pytest.mark.parametrize("place", CRASHES)
async def test_whoever_dies_on_the_way_pays_every_row_once(day: Day, place: str) -> None:
    await day.paid("alipay", 10_000)
    report = await send(day, row("1", "bank", GOOD, "10.00"), row("2", "bank", GOOD, "20.00"))
    approval = await let_go(day, report["batch"])
    approvals = Approvals(day.db, acts_of(*desk.bound_acts(day.db)))
    lease = Lease(new_id(), 1)
    await run_apply(approvals, ApplyApproval(approval), lease)

    failpoints.arm(f"{place}:raise")
    with pytest.raises(SimulatedCrash):
        await two_rounds(day, parse("trb", report["batch"]["id"]), lease)
    failpoints.arm(None)
    for _ in range(4):
        await day.stage.advance(minutes=20)

    assert await states(day, report["batch"]) == ["succeeded", "succeeded"]
    assert await day.booked("bank") == -3_000
    await day.sound()


async def test_a_file_with_a_fault_keeps_nothing_and_says_every_fault(day: Day) -> None:
    report = await send(
        day,
        row("1", "bank", "12ab", "1.00"),
        row("2", "moon", GOOD, "1.00"),
        row("3", "wallet", "wal_" + "0" * 26, "1.00"),
        row("4", "bank", GOOD, "0.001"),
        row("5", "bank", GOOD, "1.00"),
        row("5", "bank", GOOD, "1.00"),
    )

    assert report["batch"] is None
    assert [(fault["line"], fault["column"]) for fault in report["faults"]] == [
        (2, "payee"), (3, "destination"), (4, "payee"), (5, "amount"), (7, "number"),
    ]  # fmt: skip
    assert await day.db.fetch("select 1 from transfer_item", ()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"a,b\r\n1,2\r\n",
        (",".join(COLUMNS) + "\r\n").encode(),
        (",".join(COLUMNS) + '\r\n"open quote').encode(),
        (",".join(COLUMNS) + "\r\n" + "x\r\n" * 5_001).encode(),
        b"x" * (2 * 1024 * 1024 + 1),
    ],
)
def test_what_is_no_table_of_transfers_is_refused_whole(content: bytes) -> None:
    with pytest.raises(TransferFileMalformed):
        check_file(content, "CNY", open_to=EVERYWHERE)


@given(
    values=st.lists(
        st.lists(st.text(max_size=12) | st.sampled_from(["bank", GOOD, "1.00"]), max_size=8),
        min_size=1,
        max_size=4,
    )
)
@examples(max_examples=60)
def test_whatever_is_in_a_row_is_a_row_or_a_fault(values: list[list[str]]) -> None:
    content = (csv_line(COLUMNS) + "".join(map(csv_line, values))).encode("utf-8", "replace")
    try:
        checked = check_file(content, "CNY", open_to=EVERYWHERE)
    except TransferFileMalformed:
        return
    assert checked.rows or checked.faults
    assert all(each.money.amount > 0 for each in checked.rows)


async def stands(day: Day, state: MerchantState) -> None:
    async with day.db.begin("tests") as tx:
        await set_state(tx, day.stage.shop.merchant.id, state, because="tests")


async def test_a_batch_waits_while_its_merchant_is_held(day: Day) -> None:
    await day.paid("alipay", 100_000)
    wallet = await day.stage.call(day.stage.client.wallets.open, holder_name="李四")
    to_wallet, to_bank = row("1", "wallet", wallet["id"], "10.00"), row("2", "bank", GOOD, "20.00")
    batches = [await send(day, to_wallet, to_bank), await send(day, to_bank)]
    sent, other = (each["batch"] for each in batches)
    batch_id, lease = parse("trb", sent["id"]), Lease(new_id(), 1)
    await let_go(day, sent)

    await stands(day, MerchantState.HELD)
    await day.stage.idle()
    assert await states(day, sent) == ["listed", "listed"]
    async with day.db.begin("operator:anna") as tx:
        with pytest.raises(MerchantHeld):
            await desk.propose_release(tx, parse("trb", other["id"]), reason="pay day")

    # Held between the hold of a row and its instruction: nothing is sent.
    await stands(day, MerchantState.ACTIVE)
    await desk.run_transfer_batch(day.clearing, desk.RunTransferBatch(batch_id), lease)
    await stands(day, MerchantState.STOPPED)
    await one_round(day, batch_id, lease)
    assert await states(day, sent) == ["succeeded", "held"]

    await stands(day, MerchantState.ACTIVE)
    await day.stage.advance(hours=1, minutes=1)
    await day.stage.advance(minutes=6)
    assert await states(day, sent) == ["succeeded", "succeeded"]
    assert await day.booked("bank") == -2_000
