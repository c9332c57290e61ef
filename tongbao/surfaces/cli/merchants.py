"""Commands that take a merchant on: open it, agree prices, connect channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import click
import msgspec

from tongbao.infra.admission.rate_limits import RateLimit
from tongbao.infra.admission.rate_shares import set_rate_limit
from tongbao.infra.settings import Secret
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import ROLES, Role
from tongbao.parties.identity.queries import key_of_merchant
from tongbao.parties.merchants import queries
from tongbao.parties.merchants.merchants import (
    BankAccount,
    connect_channel,
    open_merchant,
    set_suspended,
)
from tongbao.parties.merchants.model import LateSuccess, Merchant, MerchantState
from tongbao.parties.price_plans.approving import PriceDraft, PriceTerms, propose_prices
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan
from tongbao.parties.standing.standing import propose_standing
from tongbao.rails.channels.accounts import ChannelAccountNotFound, list_accounts
from tongbao.surfaces.cli.context import Context, Platform, Text, actor
from tongbao.surfaces.jeepay import apps, notices
from tongbao.surfaces.jeepay.model import FacadeOff, JeepayApp, NewSecret, NotifyBy

_MODES = click.Choice([mode.value for mode in Mode])


class BankAccountIncomplete(Invalid):
    """A bank account is a holder and a number; one of the two is missing."""

    code = "merchant.bank_account_incomplete"
    advice = "Give both --bank-holder and --bank-number, or neither."
    advice_zh = "请同时提供 --bank-holder 与 --bank-number，或都不提供。"


def _mode_option(command: Callable[..., None]) -> Callable[..., None]:
    choose = click.option(
        "--mode", type=_MODES, default="sandbox", show_default=True, help="Real money or test."
    )
    return choose(command)


@click.group()
def merchant() -> None:
    """Merchants: who takes payments here, at what price, over which channels."""


@merchant.command("open")
@click.option("--name", required=True, type=Text(128), help="The merchant's name.")
@click.option("--bank-holder", type=Text(140), help="Whose account settlements are paid to.")
@click.option(
    "--bank-number", type=Text(34), help="The account's number; kept sealed, shown masked."
)
@click.option(
    "--late-success",
    type=click.Choice([each.value for each in LateSuccess]),
    default=LateSuccess.REFUND.value,
    show_default=True,
    help="What happens to money that comes after its order was given up.",
)
@click.option(
    "--settlement-delay-days",
    type=click.IntRange(0, 30),
    default=1,
    show_default=True,
    help="1 is T+1.",
)
@click.pass_obj
def merchant_open(
    context: Context,
    *,
    name: str,
    bank_holder: str | None,
    bank_number: str | None,
    late_success: str,
    settlement_delay_days: int,
) -> None:
    """Take a merchant on; prices, channels and keys come next."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            opened = await open_merchant(
                tx,
                platform.keyring,
                name=name,
                bank_account=_bank_account(bank_holder, bank_number),
                late_success=LateSuccess(late_success),
                settlement_delay_days=settlement_delay_days,
            )
        return _facts(opened)

    context.show(context.run(work))


@merchant.command("list")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def merchant_list(context: Context, limit: int) -> None:
    """List merchants, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        page = await queries.list_merchants(platform.db, cursor=None, limit=limit)
        return [_facts(each) for each in page.items]

    context.show(context.run(work))


@merchant.command("prices")
@click.argument("merchant")
@_mode_option
@click.option(
    "--line",
    "lines",
    type=(str, str, click.IntRange(0, 100_000)),
    multiple=True,
    required=True,
    metavar="CHANNEL WAY PPM",
    help="What a way of paying costs, in millionths: wechat_pay qr 6000 is 0.6 %. Repeatable.",
)
@click.option("--keep-fee", is_flag=True, help="Keep the fee of what is given back.")
@click.option("--because", default="agreed with the merchant", show_default=True, help="Why.")
@click.pass_obj
def merchant_prices(
    context: Context,
    *,
    merchant: str,
    mode: str,
    lines: Sequence[tuple[str, str, int]],
    keep_fee: bool,
    because: str,
) -> None:
    """Agree prices from now on; fees already taken stay as they were.

    Prices of real money are proposed, and in force once somebody else has approved them.
    """

    async def work(platform: Platform) -> dict[str, object]:
        agreed = [PriceLine(channel, pay_mode, ppm) for channel, pay_mode, ppm in lines]
        if Mode(mode) is Mode.LIVE:
            terms = PriceTerms(Mode.LIVE, PriceDraft(agreed, refund_returns_fee=not keep_fee))
            async with platform.db.begin(actor()) as tx:
                waiting = await propose_prices(tx, parse("mch", merchant), terms, reason=because)
            return {"merchant": merchant, "mode": mode, "approval": waiting.shown_id}
        async with platform.db.begin(actor()) as tx:
            plan = await set_price_plan(
                tx,
                parse("mch", merchant),
                Mode(mode),
                agreed,
                refund_returns_fee=not keep_fee,
            )
        return {"merchant": merchant, "mode": mode, "version": plan.version}

    context.show(context.run(work))


@merchant.command("connect")
@click.argument("merchant")
@click.argument("account")
@click.pass_obj
def merchant_connect(context: Context, merchant: str, account: str) -> None:
    """Let one of our accounts at a channel serve the merchant, in the account's mode."""

    async def work(platform: Platform) -> dict[str, object]:
        account_id = parse("chn", account)
        found = [row for row in await list_accounts(platform.db) if row.id == account_id]
        if not found:
            raise ChannelAccountNotFound
        channel, mode = found[0].channel, found[0].mode
        async with platform.db.begin(actor()) as tx:
            await connect_channel(tx, parse("mch", merchant), mode, channel, account_id)
        return {"merchant": merchant, "mode": mode, "channel": channel, "account": account}

    context.show(context.run(work))


@merchant.command("suspend")
@click.argument("merchant")
@click.option("--because", required=True, help="Why, for the audit log.")
@click.pass_obj
def merchant_suspend(context: Context, merchant: str, because: str) -> None:
    """Stop a merchant from taking new payments; refunds and settlement go on."""

    async def work(platform: Platform) -> dict[str, object]:
        merchant_id = parse("mch", merchant)
        async with platform.db.begin(actor()) as tx:
            return _facts(await set_suspended(tx, merchant_id, suspended=True, because=because))

    context.show(context.run(work))


@merchant.command("reinstate")
@click.argument("merchant")
@click.option("--because", required=True, help="Why, for the audit log.")
@click.pass_obj
def merchant_reinstate(context: Context, merchant: str, because: str) -> None:
    """Propose that a suspended merchant takes payments again; a second person approves."""
    may = frozenset(ROLES[Role.ADMIN])

    async def work(platform: Platform) -> dict[str, object]:
        after, merchant_id = MerchantState.ACTIVE, parse("mch", merchant)
        async with platform.db.begin(actor()) as tx:
            asked = await propose_standing(tx, merchant_id, after, reason=because, may=may)
        return {"merchant": merchant, "approval": asked.shown_id}

    context.show(context.run(work))


@merchant.command("rate-limit")
@click.argument("merchant")
@_mode_option
@click.option("--key", help="Of this API key alone; left out, of the merchant with all its keys.")
@click.option(
    "--units-per-s", type=click.IntRange(1, 1_000_000), required=True, help="Units a second."
)
@click.option("--burst", type=click.IntRange(1, 10_000_000), required=True, help="Units at once.")
@click.option("--units-per-day", type=click.IntRange(1), help="A daily quota; none unless given.")
@click.pass_obj
def merchant_rate_limit(
    context: Context, /, merchant: str, mode: str, *, key: str | None, **units: int | None
) -> None:
    """Say how much a merchant, or one of its keys, may ask; heard of within seconds."""
    merchant_id, limit = parse("mch", merchant), msgspec.convert(units, RateLimit)

    async def work(platform: Platform) -> dict[str, str | int | None]:
        await queries.merchant_with_id(platform.db, merchant_id)
        subject = merchant_id
        if key is not None:
            found = await key_of_merchant(platform.db, parse("key", key), merchant_id, Mode(mode))
            subject = found.id
        async with platform.db.begin(actor()) as tx:
            await set_rate_limit(tx, (subject, Mode(mode)), limit, key or merchant)
        return {"merchant": merchant, "mode": mode, "key": key, **units}

    context.show(context.run(work))


@merchant.group("jeepay")
def jeepay() -> None:
    """Programs written for jeepay: who is let in, and what they were told."""


@jeepay.command("enable")
@click.argument("merchant")
@_mode_option
@click.option("--mch-no", type=Text(64), help="The merchant's mchNo at jeepay. Default: our id.")
@click.option("--app-id", type=Text(64), help="The program's appId at jeepay. Default: a new one.")
@click.option(
    "--notify-by",
    type=click.Choice(get_args(NotifyBy)),
    default="form",
    show_default=True,
    help="Where notices have their fields: in a form, or in the address, as at first in jeepay.",
)
@click.pass_obj
def jeepay_enable(
    context: Context,
    *,
    merchant: str,
    mode: str,
    mch_no: str | None,
    app_id: str | None,
    notify_by: NotifyBy,
) -> None:
    """Let a merchant's programs in; the secret is new, and shown this once."""

    async def work(platform: Platform) -> dict[str, object]:
        if not platform.settings.jeepay_facade:
            raise FacadeOff
        async with platform.db.begin(actor()) as tx:
            made = await apps.enable(
                tx,
                platform.keyring,
                parse("mch", merchant),
                Mode(mode),
                mch_no=mch_no,
                app_id=app_id,
                notify_by=notify_by,
            )
        return _new_secret_facts(made)

    context.show(context.run(work))


@jeepay.command("roll")
@click.argument("app_id")
@click.pass_obj
def jeepay_roll(context: Context, app_id: str) -> None:
    """Give a program a new secret, shown this once; the old one ends at once."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            made = await apps.roll(tx, platform.keyring, app_id)
        return _new_secret_facts(made)

    context.show(context.run(work))


@jeepay.command("disable")
@click.argument("app_id")
@click.pass_obj
def jeepay_disable(context: Context, app_id: str) -> None:
    """Let a program in no more and send it nothing; its orders and refunds go on."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            return _app_facts(await apps.disable(tx, app_id))

    context.show(context.run(work))


@jeepay.command("list")
@click.argument("merchant")
@click.pass_obj
def jeepay_list(context: Context, merchant: str) -> None:
    """List a merchant's programs, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = await apps.apps_of(platform.db, parse("mch", merchant))
        return [_app_facts(each) for each in found]

    context.show(context.run(work))


@jeepay.command("notices")
@click.argument("merchant")
@_mode_option
@click.option("--unanswered", is_flag=True, help="Only those that nobody answered success to.")
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def jeepay_notices(
    context: Context, merchant: str, mode: str, *, unanswered: bool, limit: int
) -> None:
    """Show what a merchant was told, and what their program answered."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        found = await notices.notices_of(
            platform.db, parse("mch", merchant), Mode(mode), only_unanswered=unanswered, limit=limit
        )
        return [notices.view_notice(each) for each in found]

    context.show(context.run(work))


@jeepay.command("resend")
@click.argument("notice")
@click.pass_obj
def jeepay_resend(context: Context, notice: str) -> None:
    """Send a notice that has ended again, from the first try."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            sent = await notices.send_again(tx, parse(notices.PREFIX, notice))
        return notices.view_notice(sent)

    context.show(context.run(work))


def _new_secret_facts(made: NewSecret) -> dict[str, object]:
    return {**_app_facts(made.app), "secret": made.secret.reveal()}


def _app_facts(app: JeepayApp) -> dict[str, object]:
    return {
        "mch_no": app.mch_no,
        "app_id": app.app_id,
        "mode": app.mode.value,
        "state": "enabled" if app.disabled_at is None else "disabled",
        "notify_by": app.notify_by,
        "secret_tail": app.secret_tail,
    }


def _bank_account(holder: str | None, number: str | None) -> BankAccount | None:
    if holder is None and number is None:
        return None
    if holder is None or number is None:
        raise BankAccountIncomplete
    return BankAccount(holder, Secret(number))


def _facts(merchant: Merchant) -> dict[str, object]:
    return {
        "merchant": show("mch", merchant.id),
        "name": merchant.name,
        "state": merchant.state,
        "bank_account": merchant.bank_account_masked,
    }
