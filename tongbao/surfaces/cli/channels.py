"""Commands for our accounts at channels: add one from a file, list them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import click
import msgspec
from msgspec import Meta, Struct

from tongbao.controls.approvals.model import Approval
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.payments.channel_keys.changes import change_keys, fingerprints, propose_account
from tongbao.rails.channels.accounts import (
    NewAccount,
    add_account,
    checked_account,
    list_accounts,
)
from tongbao.surfaces.cli.context import Context, Platform, actor, refusals_told

_FROM_FILE: Final = "_file"
_FILE: Final = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
_BECAUSE: Final = click.option(
    "--because", default="agreed with the channel", show_default=True, help="Why."
)


class AccountFileMalformed(Invalid):
    """The file does not describe an account at a channel; its contents are not repeated here."""

    code = "channel_account.file_malformed"
    advice = "Write the file as docs/how-to/connect-a-merchant.md shows it."
    advice_zh = "请按 docs/how-to/connect-a-merchant.md 的示例编写该文件。"


class AccountFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What the file of an account says."""

    channel: str
    mode: Mode
    gateway: str
    merchant_number: str
    app_id: str
    fee_ppm: Annotated[int, Meta(ge=0, le=100_000)]
    keys: dict[str, Any]


@click.group()
def channel() -> None:
    """Our accounts at WeChat Pay, Alipay, UnionPay, card hosts and the bank."""


@channel.command("add")
@_FILE
@_BECAUSE
@click.pass_obj
def channel_add(context: Context, file: Path, because: str) -> None:
    """Register the account a TOML file describes, and seal its keys.

    An account for real money is proposed, and there once somebody else has approved it.

    A key may be in a file of its own: merchant_private_key_pem_file = "apiclient_key.pem".
    """
    with refusals_told():
        account = read_account(file)

    async def work(platform: Platform) -> dict[str, object]:
        with_keys = (platform.keyring, platform.secret_types)
        async with platform.db.begin(actor()) as tx:
            if account.mode is Mode.LIVE:
                return _waiting(await propose_account(tx, *with_keys, account, reason=because))
            row = await add_account(tx, *with_keys, account)
        opened = await platform.flow.account(row.id)
        return {"account": show("chn", row.id), "notify_url": opened.notify_url}

    context.show(context.run(work))


@channel.command("keys")
@click.argument("account")
@_FILE
@_BECAUSE
@click.pass_obj
def channel_keys(context: Context, account: str, file: Path, because: str) -> None:
    """Replace an account's keys by those in its file; live ones when somebody else agrees."""
    with refusals_told():
        keys = read_account(file).keys

    async def work(platform: Platform) -> dict[str, object]:
        with_keys = (platform.keyring, platform.secret_types)
        async with platform.db.begin(actor()) as tx:
            asked = await change_keys(tx, *with_keys, parse("chn", account), keys, reason=because)
        return _waiting(asked) if asked else {"account": account, "keys": "replaced"}

    context.show(context.run(work))


@channel.command("fingerprints")
@_FILE
@click.pass_obj
def channel_fingerprints(context: Context, file: Path) -> None:
    """Tell the keys of a file apart, to compare them with a proposal's; nothing is kept."""
    with refusals_told():
        account = read_account(file)

    async def work(platform: Platform) -> dict[str, object]:
        plaintext = checked_account(platform.secret_types, account)
        return dict(fingerprints(platform.keyring, plaintext))

    context.show(context.run(work))


@channel.command("show")
@click.argument("account")
@click.pass_obj
def channel_show(context: Context, account: str) -> None:
    """Show where a channel reports an account's payments to."""

    async def work(platform: Platform) -> dict[str, object]:
        opened = await platform.flow.account(parse("chn", account))
        return {"account": account, "notify_url": opened.notify_url}

    context.show(context.run(work))


@channel.command("list")
@click.pass_obj
def channel_list(context: Context) -> None:
    """List the accounts; their keys stay sealed."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "account": show("chn", row.id),
                "channel": row.channel,
                "mode": row.mode,
                "number": row.merchant_number,
                "app": row.app_id,
                "fee_ppm": row.fee_ppm,
                "state": row.state,
                "gateway": row.gateway,
            }
            for row in await list_accounts(platform.db)
        ]

    context.show(context.run(work))


def read_account(file: Path) -> NewAccount:
    """Return the account a file describes, with the keys it names files for.

    Raises:
        AccountFileMalformed
    """
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
        said = msgspec.convert(given, AccountFile)
        keys = dict(_key(file.parent, name, value) for name, value in said.keys.items())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as failure:
        raise AccountFileMalformed(file=str(file), reason=type(failure).__name__) from None
    except msgspec.ValidationError as failure:
        where = str(failure).rpartition(" - at ")[2].strip("`")
        raise AccountFileMalformed(file=str(file), at=where[:64]) from None
    return NewAccount(
        channel=said.channel,
        mode=said.mode,
        gateway=said.gateway,
        merchant_number=said.merchant_number,
        app_id=said.app_id,
        fee_ppm=said.fee_ppm,
        keys=keys,
    )


def _waiting(asked: Approval) -> dict[str, object]:
    return {"approval": asked.shown_id, "act": asked.act, "state": asked.state.value}


def _key(folder: Path, name: str, value: object) -> tuple[str, object]:
    """Return one key, read from the file beside the account's that it names."""
    if name.endswith(_FROM_FILE) and isinstance(value, str):
        return name.removesuffix(_FROM_FILE), (folder / value).read_text(encoding="utf-8")
    return name, value
