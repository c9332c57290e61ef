"""The reserve: customers' money beside what banks say, to the fen, and worked out again later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tongbao.clearing.reserve import custody, model, proving, queries
from tongbao.clearing.reserve.custody import (
    BALANCE,
    CLOSE,
    EXPLAIN,
    OPEN,
    BalanceTerms,
    CloseTerms,
    ExplainTerms,
)
from tongbao.clearing.reserve.model import (
    BookInput,
    BookLine,
    CustodyAccount,
    Inputs,
    ProofState,
    Purpose,
    ReserveDayNotOver,
    ReserveProof,
    ReserveRule,
    Role,
    Source,
    StatementDayWrong,
    StatementInput,
    work_out,
)
from tongbao.clearing.reserve.papers import PaperUnreadable, read_closing, record_closings
from tongbao.clearing.reserve.proving import ProveReserve, Reserve
from tongbao.clearing.sources.ingest import add_source, take_file
from tongbao.clearing.sources.layouts import built_in
from tongbao.clearing.sources.model import FileSeenBefore
from tongbao.controls.approvals.approvals import ApplyApproval, approve, propose, run_apply
from tongbao.controls.approvals.model import Approvals, OwnProposal, acts_of
from tongbao.infra import failpoints
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.failpoints import SimulatedCrash
from tongbao.kernel.clock import BUSINESS_ZONE, real_now
from tongbao.kernel.ids import derived_id, new_id, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import Money
from tongbao.ledger.book import Ledger
from tongbao.ledger.model import AccountKey, Group
from tongbao.ledger.proofs.model import Proofs
from tongbao.ledger.rules import posting
from tongbao.ledger.rules.chart import CHART
from tongbao.parties.merchants.merchants import SANDBOX_BOOK

DAY = date(2026, 11, 18)  # a Wednesday
MAY = {"settlement_act"}
KEYRING = Keyring([b"k" * 32])
MERCHANT, WALLET, CHANNEL = UUID(int=11), UUID(int=12), UUID(int=13)


class House:
    """A licensed house with a book, an account at a bank, and people in finance."""

    def __init__(self, db: Db) -> None:
        self.db = db
        self.number = ""
        self.ledger = Ledger(db, Licence.PAYMENT_INSTITUTION)
        self.reserve = Reserve(db, Proofs(db, KEYRING))
        self.desk = Approvals(db, acts_of(*custody.bound_acts(db)))

    def at(self, day: date, hour: int = 9) -> None:
        moment = datetime(day.year, day.month, day.day, hour, tzinfo=BUSINESS_ZONE)
        self.db.clock.offset = moment - real_now()

    async def post(self, rule: str, **amounts: int) -> None:
        accounts = {
            "wallet": AccountKey("wallet", "CNY", WALLET),
            "merchant_payable": AccountKey("merchant_payable", "CNY", MERCHANT),
            "channel_receivable": AccountKey("channel_receivable", "CNY", CHANNEL),
        }
        money = {name: Money(amount, "CNY") for name, amount in amounts.items()}
        reference = new_id()
        transfers = posting.transfers(rule, reference=reference, accounts=accounts, amounts=money)
        [result] = await self.ledger.submit([Group(reference, SANDBOX_BOOK, transfers)])
        assert result.happened, result

    async def agreed(self, act: Any, subject: str, terms: Any) -> str:
        """Have two people agree, and what they agreed to happen; return the approval's id."""
        async with self.db.begin("opr_maker") as tx:
            asked = await propose(tx, act, subject, terms, reason="month's end", may=MAY)
        with pytest.raises(OwnProposal):
            async with self.db.begin("opr_maker") as tx:
                await approve(tx, self.desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
        async with self.db.begin("opr_checker") as tx:
            await approve(tx, self.desk.acts, asked.id, digest=asked.digest.hex(), may=MAY)
        lease: Any = None
        await run_apply(self.desk, ApplyApproval(asked.id), lease)
        return asked.shown_id

    async def account(self, purpose: Purpose = Purpose.CUSTOMERS) -> CustodyAccount:
        self.number = f"2023{new_id().int % 10**12:012d}"
        terms = custody.open_terms(
            KEYRING,
            self.number,
            mode=Mode.SANDBOX,
            currency="CNY",
            purpose=purpose,
            bank="Bank",
            opened_on=DAY - timedelta(days=30),
        )
        await self.agreed(OPEN, f"new {purpose} account", terms)
        found = await custody.custody_accounts(self.db, Mode.SANDBOX)
        return max(found, key=lambda each: each.id)

    async def paper(self, account: CustodyAccount, amount: int, day: date = DAY) -> None:
        """The bank's own paper of a day comes in."""
        content = sha256(f"{account.id} {day} {amount}".encode()).digest()
        async with self.db.begin("ingest") as tx:
            await custody.record_statement(
                tx, account.id, day, amount, source=Source.CAMT_053, digest=content, name="camt"
            )

    async def prove(self, day: date = DAY) -> ReserveProof:
        [proof] = await proving.prove_day(self.reserve, Mode.SANDBOX, day, actor="test")
        return proof

    async def gaps(self) -> list[tuple[str, int]]:
        return [(each.kind, each.amount) for each in await queries.open_gaps(self.db)]


@pytest.fixture
async def house(db: Db) -> AsyncIterator[House]:
    """A house on whose day a customer put 1,000.00 into a wallet."""
    ready = House(db)
    await ready.ledger.open_book(SANDBOX_BOOK, actor="tests")
    ready.at(DAY)
    await ready.post("wallet.topped_up", amount=100_000)
    yield ready
    await ready.ledger.close()


async def next_day(house: House) -> CustodyAccount:
    account = await house.account()
    house.at(DAY + timedelta(days=1))
    return account


async def test_a_day_that_is_covered_is_proved_and_can_be_worked_out_again(house: House) -> None:
    account = await next_day(house)
    await house.paper(account, 100_000)

    proof = await house.prove()
    await house.post("wallet.topped_up", amount=7)  # the books go on
    again = await house.prove()

    assert (proof.state, proof.owed, proof.required) == (ProofState.COVERED, 100_000, 100_000)
    assert again.id == proof.id
    assert await house.gaps() == []
    assert await queries.verify_proof(house.db, proof, from_journal=True) == []


@pytest.mark.parametrize(("amount", "gap"), [(99_999, ("short", 1)), (100_001, ("differs", 1))])
async def test_a_gap_of_one_fen_is_found_and_stays_until_two_people_explain_it(
    house: House, amount: int, gap: tuple[str, int]
) -> None:
    account = await next_day(house)
    await house.paper(account, amount)

    await house.prove()
    await house.prove()
    assert await house.gaps() == [gap]
    told = await house.db.fetch("select body from event where type = 'reserve.gap_found'", ())
    assert [row["body"]["amount"] for row in told] == [1]

    await house.paper(account, 100_000)  # the bank corrects itself
    better = await house.prove()
    assert (better.state, better.version) == (ProofState.COVERED, 2)
    assert await house.gaps() == [gap]

    [found] = await queries.open_gaps(house.db)
    terms = ExplainTerms(show(model.GAP, found.id), "the bank booked a fee and took it back")
    approval = await house.agreed(EXPLAIN, terms.gap, terms)
    assert await house.gaps() == []
    [explained] = await queries.gaps_of_day(house.db, Mode.SANDBOX, DAY)
    assert explained.explained_as == approval


async def test_what_channels_have_not_paid_over_need_not_lie_at_the_bank(house: House) -> None:
    await house.post("payment.captured", gross=10_000, fee=60)
    account = await next_day(house)
    await house.paper(account, 100_000)

    proof = await house.prove()

    # Of 10,000 at the channel 60 is the house's own, so 9,940 of 109,940 counts out.
    assert (proof.state, proof.owed, proof.required) == (ProofState.COVERED, 109_940, 100_000)
    assert proof.bank_in_books == 100_000


async def test_own_earnings_lie_apart(house: House) -> None:
    await house.post("payment.captured", gross=10_000, fee=60)
    await house.post("channel.settled", amount=10_000)
    account, own = await house.account(), await house.account(Purpose.OWN)
    house.at(DAY + timedelta(days=1))
    await house.paper(account, 109_940)
    await house.paper(own, 60)
    good = await house.prove()

    await house.paper(account, 109_900)  # forty of customers' money went to the own account
    await house.paper(own, 100)
    bad = await house.prove()

    assert (good.state, good.custody, good.own_at_bank) == (ProofState.COVERED, 109_940, 60)
    assert (bad.state, bad.shortfall, bad.difference) == (ProofState.SHORT, 40, 0)


async def test_a_bank_that_is_silent_on_a_working_day_leaves_the_day_unproved(
    house: House,
) -> None:
    account = await next_day(house)
    silent = await house.prove()
    friday, saturday = date(2026, 11, 20), date(2026, 11, 21)
    house.at(saturday + timedelta(days=1))
    await house.paper(account, 100_000, friday)
    weekend = await house.prove(saturday)

    assert silent.state is ProofState.INCOMPLETE
    assert await house.gaps() == [("incomplete", -100_000)]
    assert weekend.state is ProofState.COVERED


async def test_an_account_that_is_closed_counts_until_its_last_day(house: House) -> None:
    account = await next_day(house)
    await house.paper(account, 100_000)
    shown, end = show(model.ACCOUNT, account.id), DAY + timedelta(days=1)
    await house.agreed(CLOSE, shown, CloseTerms(shown, end))
    house.at(DAY + timedelta(days=2))

    before, after = await house.prove(), await house.prove(end)

    assert (before.state, after.state) == (ProofState.COVERED, ProofState.SHORT)
    assert (after.custody, after.shortfall) == (0, 100_000)


async def test_a_balance_by_hand_is_two_peoples(house: House) -> None:
    account = await next_day(house)
    shown = show(model.ACCOUNT, account.id)

    await house.agreed(BALANCE, shown, BalanceTerms(shown, DAY, 100_000, "branch, page 3"))

    [found] = await custody.balances_of(house.db, account.id)
    assert (found.amount, found.source) == (100_000, Source.MANUAL)
    assert (await house.prove()).state is ProofState.COVERED


MT940 = """:20:START
:25:20230000/1234
:28C:1/1
:60F:C261117CNY990,00
:61:2611181118C10,00NTRFA1//B1
:86:a customer
:62F:C261118CNY1000,00
"""


def test_a_banks_own_file_says_what_it_closes_with(tmp_path: Path) -> None:
    path = tmp_path / "day.sta"
    path.write_text(MT940)

    closing, digest = read_closing(path, Source.MT940, "CNY")

    assert closing == 100_000
    assert digest == sha256(MT940.encode()).digest()


@pytest.mark.parametrize(
    ("before", "after", "currency"),
    [
        ("C10,00", "C10,01", "CNY"),  # the rows do not lead to the closing
        (":62F:C261118CNY1000,00\n", "", "CNY"),  # cut off
        (":61:2611181118C10,00", ":61:what", "CNY"),
        (":62F:C261118CNY1000,00\n", ":62F:C261118CNY1000,00\n" * 2, "CNY"),
        ("x", "x", "USD"),
        ("x", "x", "JPY"),
    ],
)
def test_a_file_that_is_no_whole_statement_is_refused(
    tmp_path: Path, before: str, after: str, currency: str
) -> None:
    path = tmp_path / "day.sta"
    path.write_text(MT940.replace(before, after))

    with pytest.raises(PaperUnreadable):
        read_closing(path, Source.MT940, currency)


CAMT = """<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>
<Acct><Id><Othr><Id>{number}</Id></Othr></Id></Acct>
<Bal><Tp><CdOrPrtry><Cd>CLBD</Cd></CdOrPrtry></Tp><Amt Ccy="CNY">1000.00</Amt>
<CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>2026-11-18</Dt></Dt></Bal></Stmt></BkToCstmrStmt></Document>"""


async def taken(house: House, path: Path, layout: str) -> None:
    """The bank's file comes in as any source's does; nobody enters a balance."""
    async with house.db.begin("operator") as tx:
        await add_source(tx, "bank", built_in()[layout], Mode.SANDBOX)
    feed = partial(record_closings, KEYRING)
    await take_file(house.db, "bank", DAY, path, actor="cli", on_complete=feed)


@pytest.mark.parametrize(
    ("layout", "place", "written"),
    [
        ("mt940", "sources.after_chunk", "20230000/{}"),
        ("mt940", "sources.after_end", "{}CNY"),
        ("camt.053", None, ""),
    ],
)
async def test_a_statement_that_a_source_brings_proves_the_day_by_itself_and_once(
    house: House, tmp_path: Path, layout: str, place: str | None, written: str
) -> None:
    account = await next_day(house)
    text = MT940.replace("20230000/1234", written.format(house.number))
    if layout == "camt.053":
        text = CAMT.format(number=house.number)
    path = tmp_path / "day"
    path.write_text(text)
    if place is not None:
        failpoints.arm(f"{place}:raise")
        with pytest.raises(SimulatedCrash):
            await taken(house, path, layout)
        failpoints.arm(None)
    if place == "sources.after_end":
        with pytest.raises(FileSeenBefore):
            await taken(house, path, layout)
    else:
        await taken(house, path, layout)

    [balance] = await custody.balances_of(house.db, account.id)
    assert (balance.amount, balance.day, balance.version) == (100_000, DAY, 1)
    assert balance.digest == sha256(text.encode()).digest()
    assert (await house.prove()).state is ProofState.COVERED


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/1234", "/1{tail}"),  # another account whose number ends so
        ("C261118CNY1000", "C261119CNY1000"),  # a day that goes on
        (":86:a customer\n", ":61:what\n"),  # a line that cannot be read
        ("CNY", "USD"),
    ],
)
async def test_a_statement_that_says_nothing_for_sure_of_a_custody_account_proves_nothing(
    house: House, tmp_path: Path, before: str, after: str
) -> None:
    account = await next_day(house)
    after = after.format(tail=account.account_masked[-4:])
    path = tmp_path / "day.sta"
    path.write_text(MT940.replace(before, after).replace("/1234", f"/{house.number}"))

    await taken(house, path, "mt940")

    assert await custody.balances_of(house.db, account.id) == []


async def test_the_same_paper_twice_is_one_and_no_paper_is_of_a_day_that_goes_on(
    house: House,
) -> None:
    account = await next_day(house)
    await house.paper(account, 100_000)
    await house.paper(account, 100_000)

    assert len(await custody.balances_of(house.db, account.id)) == 1
    for day in (DAY + timedelta(days=1), DAY - timedelta(days=31)):
        with pytest.raises(StatementDayWrong):
            await house.paper(account, 1, day)
    with pytest.raises(ReserveDayNotOver):
        await house.prove(DAY + timedelta(days=1))


@pytest.mark.parametrize(
    ("sql", "where"),
    [
        ("update reserve_proof set owed = owed - 1", "digest"),
        ("update reserve_proof set inputs = jsonb_set(inputs, '{rule,ratio_bp}', '1')", "digest"),
        ("update custody_balance set amount = amount + 1", "statement"),
        ("update gl_voucher_line set credits = credits + 1 where account = '2241.03'", "book"),
        (
            "update reserve_proof set inputs = jsonb_set(inputs, '{books,0,note}', '\"batch 99\"')",
            "digest",
        ),
    ],
)
async def test_whoever_changes_a_figure_afterwards_is_found_out(
    house: House, sql: str, where: str
) -> None:
    account = await next_day(house)
    await house.paper(account, 100_000)
    proof = await house.prove()

    tables = "reserve_proof, custody_balance, gl_voucher_line"
    await house.db.execute(f"grant update on {tables} to current_user", ())
    await house.db.execute(sql, ())

    changed = await queries.proof_with_id(house.db, proof.id)
    found = await queries.verify_proof(house.db, changed)
    assert [each.where.split()[0] for each in found][:1] == [where]


async def test_two_who_prove_at_once_write_one_proof_or_are_told(house: House) -> None:
    account = await next_day(house)
    await house.paper(account, 100_000)

    ends = await asyncio.gather(*[house.prove() for _ in range(3)], return_exceptions=True)

    assert {type(each) for each in ends} <= {ReserveProof, model.ProofContended}
    rows = await house.db.fetch("select version from reserve_proof", ())
    assert [row["version"] for row in rows] == [1]


async def test_dying_before_the_commit_leaves_nothing_and_the_round_makes_up_for_it(
    house: House,
) -> None:
    account = await next_day(house)
    await house.paper(account, 99_000)
    failpoints.arm("reserve.before_proof_commit:raise")
    with pytest.raises(SimulatedCrash):
        await proving.run_prove_reserve(house.reserve, ProveReserve(), _no_lease())
    failpoints.arm(None)
    assert await house.gaps() == []

    again = await proving.run_prove_reserve(house.reserve, ProveReserve(), _no_lease())
    house.at(DAY + timedelta(days=3))
    await proving.run_prove_reserve(house.reserve, ProveReserve(), _no_lease())

    assert timedelta() < again.after <= timedelta(days=1)
    until = DAY + timedelta(days=2)
    days = {each.day for each in await queries.proofs_between(house.db, Mode.SANDBOX, DAY, until)}
    assert days == {DAY + timedelta(days=n) for n in range(3)}
    assert ("short", 1000) in await house.gaps()


def _no_lease() -> Any:
    return None


# --- the figures ----------------------------------------------------------------------------------

RULE = ReserveRule(date(2021, 3, 1), 10_000, "rule", "3")
AMOUNT = st.integers(0, 10**12)


@given(AMOUNT, AMOUNT, st.integers(-(10**9), 10**9), st.integers(0, 10**9), st.integers(-3, 3))
def test_a_shortfall_is_never_hidden_by_what_channels_owe(
    wallets: int, at_channels: int, own: int, swept: int, off: int
) -> None:
    """Where customers' part of the receivable is largest, custody must still hold the rest."""
    bank = wallets + own - at_channels
    lines = (
        BookLine("2241.03", Role.OWED, wallets),
        BookLine("1221.01", Role.CHANNELS, -at_channels),
        BookLine("6021", Role.OWN, own),
        BookLine("1002", Role.BANK, -bank),
    )
    papers = [(Purpose.CUSTOMERS, bank - swept + off), (Purpose.OWN, swept)]
    statements = tuple(
        StatementInput(UUID(int=n), purpose, DAY, 1, amount, Source.MT940, "")
        for n, (purpose, amount) in enumerate(papers)
    )
    books = (BookInput(1, 1, "", lines),)
    found = work_out(Inputs(Mode.LIVE, "CNY", DAY, RULE, books, statements, ()))

    assert found.difference == off
    assert found.shortfall == max(0, found.required - found.custody)
    assert found.required >= min(wallets, max(0, wallets - at_channels))
    assert (found.state is ProofState.COVERED) == (not found.shortfall and not off)
    more = replace(statements[0], amount=statements[0].amount - 1)
    less = work_out(Inputs(Mode.LIVE, "CNY", DAY, RULE, books, (more, *statements[1:]), ()))
    assert less.difference == off - 1
    assert less.shortfall >= found.shortfall


def test_every_kind_of_account_that_holds_others_money_is_owed() -> None:
    roles = {kind: model._role_of(kind) for kind in CHART}

    assert {kind for kind in CHART if CHART[kind].holds_funds} <= {
        kind for kind, role in roles.items() if role is Role.OWED
    }
    assert roles["suspense"] is roles["in_transit_out"] is Role.OWED
    assert roles["bank"] is Role.BANK
    assert roles["fee_income"] is roles["merchant_debt"] is Role.OWN
    assert derived_id(UUID(int=1), "short") != derived_id(UUID(int=1), "differs")
