"""How fast a bill is read and compared: N rows on both sides and in the ledger, durability on.

    python -m bench.reconciliation 1000000

Both sides are made first (that is not measured): N payments with their attempts and postings, and
a WeChat Pay trade bill of the same day with a few differences planted in it. Then the day is
reconciled as in production, on a PostgreSQL of its own with fsync on, and every step is timed.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec import Struct

from tongbao.clearing.context import Clearing
from tongbao.clearing.reconciliation import queries
from tongbao.clearing.reconciliation.days import reconcile_day
from tongbao.infra import embedded
from tongbao.infra.commits import Commits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, connect
from tongbao.infra.http import HttpClient, LoopbackAllowed
from tongbao.infra.migrate import migrate
from tongbao.kernel.clock import BUSINESS_ZONE, Clock, day_bounds, monotonic, real_now
from tongbao.kernel.ids import base32
from tongbao.kernel.licence import Licence, Mode
from tongbao.kernel.money import share_half_up
from tongbao.ledger.book import Ledger
from tongbao.parties.merchants.merchants import SANDBOX_BOOK
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentReads
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.channels.contract import Answer, BillFile, ChannelAccount, Exchange
from tongbao.rails.channels.wechat_pay.bills import TERMS, parse_trade_bill

DAY = date(2026, 11, 20)
FEE_PPM = 6_000
PLANTED = 10  # of each: dropped, another amount, another fee
ACCOUNT = UUID(int=0xACC)
MERCHANT = UUID(int=0x3E7C)
RECEIVABLE, PAYABLE = (SANDBOX_BOOK << 40) + 1_000_001, (SANDBOX_BOOK << 40) + 1_000_002
CHUNK = 20_000
CODE = 1
HEADER = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,"
    "付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,"
    "退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
SUMMARY = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)


class NoKeys(Struct, frozen=True):
    """The bill is there already, so nothing is signed."""


class Made:
    """The N trades, worked out again whenever they are needed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.start, _ = day_bounds(DAY)

    def __iter__(self) -> Iterator[tuple[int, UUID, UUID, int, datetime]]:
        """Yield place, attempt id, payment id, amount and time of every trade."""
        begins = int(self.start.timestamp() * 1000)
        for place in range(self.count):
            at = self.start + timedelta(seconds=place * 86_000 / self.count)
            tick = begins + place * 86_000_000 // self.count
            value = tick << 80 | 0x7 << 76 | 0b10 << 62 | place
            yield place, UUID(int=value), UUID(int=value | 1 << 61), 100 + place % 9_900, at


class Prepared:
    """A channel that hands out the bill that was made."""

    name = "wechat_pay"
    currencies = frozenset({"CNY"})
    bill_terms = TERMS

    def __init__(self, bill: Path) -> None:
        self._bill = bill

    async def download_bill(self, _account: Any, _day: date, folder: Path) -> Answer[BillFile]:
        copy = folder / "bill.csv"
        os.link(self._bill, copy)
        found = BillFile(copy, sha256="0" * 64, size=self._bill.stat().st_size)
        return Answer(found, Exchange("GET", "bench", "", 200, "", 0))

    def parse_bill(self, path: Path) -> Any:
        return parse_trade_bill(path)


def write_bill(path: Path, made: Made) -> None:
    """Write the bill with its planted differences."""
    rows = paid = fees = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"\ufeff{HEADER}\r\n")
        for place, attempt, _, amount, at in made:
            if place < PLANTED:
                continue
            told = amount + (1 if place < 2 * PLANTED else 0)
            fee = share_half_up(amount, FEE_PPM) + (1 if 2 * PLANTED <= place < 3 * PLANTED else 0)
            rows, paid, fees = rows + 1, paid + told, fees + fee
            when = at.astimezone(BUSINESS_ZONE).strftime("%Y-%m-%d %H:%M:%S")
            yuan, cost = f"{told / 100:.2f}", f"{fee / 100:.5f}"
            file.write(
                f"`{when},`wx1234567890abcdef,`1900000109,`0,`,`4200000891{place:018d},"
                f"`{base32(attempt)},`oEGFkkxiPNBmm8UrcrP0cJESuYQ_,`NATIVE,`SUCCESS,`OTHERS,`CNY,"
                f"`{yuan},`0.00,`0,`0,`0.00,`0.00,`,`,`tea,`,`{cost},`0.60%,`{yuan},`0.00,`\r\n"
            )
        total, cost = f"{paid / 100:.2f}", f"{fees / 100:.5f}"
        file.write(f"{SUMMARY}\r\n`{rows},`{total},`0.00,`0.00,`{cost},`{total},`0.00\r\n")


async def fill(db: Db, made: Made) -> None:
    """Write what payments and the ledger would have written."""
    account = (SANDBOX_BOOK, RECEIVABLE, "channel_receivable", ACCOUNT, "CNY", "debit")
    payable = (SANDBOX_BOOK, PAYABLE, "merchant_payable", MERCHANT, "CNY", "credit")
    for place, floor in ((account, None), (payable, 0)):
        await db.execute(
            "insert into ledger_account values"
            " ($1, $2, $3, $4, $5, $6, $7, null, 'open', 0, 1000000000000, 0, 1000000000000,"
            " 0, null, $8)",
            (*place, floor, made.start),
        )
    await db.execute("alter table payment alter column metadata set default '{}'", ())
    await db.execute("insert into ledger_code values ($1, 'payment.captured/gross')", (CODE,))
    chunk = []
    for trade in made:
        chunk.append(trade)
        if len(chunk) == CHUNK:
            await fill_chunk(db, chunk)
            chunk = []
    await fill_chunk(db, chunk)
    for head in (
        "update ledger_book set last_seq = $2 where book = $1",
        "update ledger_watermark set seq = $2 where book = $1",
    ):
        await db.execute(head, (SANDBOX_BOOK, made.count))
    await db.execute("analyze", ())


async def fill_chunk(db: Db, chunk: list[tuple[int, UUID, UUID, int, datetime]]) -> None:
    book, who = SANDBOX_BOOK, (MERCHANT, "sandbox")
    async with db.begin("bench") as tx:
        await tx.copy(
            "payment",
            (
                "book", "id", "merchant_id", "mode", "merchant_order_no", "request_hash", "amount",
                "currency", "subject", "channel", "pay_mode", "state", "captured", "refunded",
                "fee", "fee_returned", "refund_returns_fee", "late_success", "created_at",
                "expires_at", "succeeded_at", "ended_at", "version",
            ),
            [
                (
                    book, payment, *who, str(place), b"", amount, "CNY", "tea", "wechat_pay", "qr",
                    "succeeded", amount, 0, 0, 0, True, "refund", at, at, at, at, 3,
                )
                for place, _, payment, amount, at in chunk
            ],
        )  # fmt: skip
        await tx.copy(
            "attempt",
            (
                "book", "id", "payment_id", "merchant_id", "mode", "channel", "account_id",
                "pay_mode", "amount", "currency", "state", "channel_ref", "client_ip",
                "created_at", "paid_at", "queries",
            ),
            [
                (
                    book, attempt, payment, *who, "wechat_pay", ACCOUNT, "qr", amount, "CNY",
                    "succeeded", f"4200000891{place:018d}", "127.0.0.1", at, at, 1,
                )
                for place, attempt, payment, amount, at in chunk
            ],
        )  # fmt: skip
        await tx.copy(
            "ledger_transfer",
            (
                "book", "id", "seq", "debit_account", "credit_account", "amount", "kind", "flags",
                "code", "reference", "debit_after", "credit_after", "biz_date", "value_date", "at",
            ),
            [
                (
                    book, attempt, place + 1, RECEIVABLE, PAYABLE, amount, 1, 0,
                    CODE, payment, 0, 0, DAY, DAY, at,
                )
                for place, attempt, payment, amount, at in chunk
            ],
        )  # fmt: skip


def clearing_on(db: Db, folder: Path, bill: Path) -> Clearing:
    account = ChannelAccount(
        id=ACCOUNT,
        channel="wechat_pay",
        mode=Mode.SANDBOX,
        gateway="",
        merchant_number="1900000109",
        app_id="",
        notify_url="",
        fee_ppm=FEE_PPM,
        secrets=NoKeys(),
    )

    async def the_account(_id: UUID) -> ChannelAccount:
        return account

    channel: Any = Prepared(bill)
    flow = Flow(
        db=db,
        commits=Commits(db, "payments"),
        reads=PaymentReads(db),
        ledger=Ledger(db, Licence.PAYMENT_INSTITUTION),
        channels={"wechat_pay": channel},
        account=the_account,
        licence=Licence.PAYMENT_INSTITUTION,
        nudge=lambda: None,
    )
    bank = BankTransfer(HttpClient(LoopbackAllowed()))
    return Clearing(
        flow=flow, bank=bank, keyring=Keyring.from_file(folder / "kek"), folder=folder / "bills"
    )


class Watch:
    """When each step of a run began."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}

    def __call__(self, step: str, _done: int) -> None:
        self.began.setdefault(step, monotonic())


async def bench(count: int, folder: Path) -> None:
    made, bill = Made(count), folder / "bill.csv"
    server = embedded.start(folder / "pg")
    next_day = datetime(2026, 11, 21, 11, tzinfo=BUSINESS_ZONE)
    db = await connect(server.dsn, Clock(next_day - real_now()))
    try:
        await migrate(db, Licence.PAYMENT_INSTITUTION, "bench")
        begins = monotonic()
        write_bill(bill, made)
        await fill(db, made)
        seconds, size = monotonic() - begins, bill.stat().st_size >> 20
        print(f"made both sides in {seconds:.1f} s; the bill has {size} MB")
        await measure(db, clearing_on(db, folder, bill), count)
    finally:
        await db.close()
        server.stop()


async def measure(db: Db, clearing: Clearing, count: int) -> None:
    watch = Watch()
    begins = monotonic()
    found = await reconcile_day(clearing, ACCOUNT, DAY, on_progress=watch)
    ends = monotonic()
    staged, compared = watch.began["stage"], watch.began["compare"]
    print(f"{'step':<10}{'seconds':>10}{'rows/s':>12}")
    for step, seconds in (
        ("ingest", staged - begins),
        ("stage", compared - staged),
        ("match", ends - compared),
        ("in all", ends - begins),
    ):
        print(f"{step:<10}{seconds:>10.2f}{count / seconds:>12,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    report = await queries.report(db, ACCOUNT, DAY)
    classes = {str(each.break_class): each.count for each in report.classes}
    print(f"state {found.state}, matched {found.matched_count:,}, found {classes}")
    print(f"peak memory of this process {peak} MB")
    expected = dict.fromkeys(("missing_at_channel", "amount_differs", "fee_differs"), PLANTED)
    if classes != expected or found.matched_count != count - 3 * PLANTED:
        raise SystemExit("the planted differences were not what was found")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="tongbao-bench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        asyncio.run(bench(count, folder))


if __name__ == "__main__":
    main()
