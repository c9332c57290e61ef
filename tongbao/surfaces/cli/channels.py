"""Commands for our accounts at channels: add one from a file, list them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

import click
import msgspec
from msgspec import Meta, Struct

from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.rails.channels.accounts import NewAccount, add_account, list_accounts
from tongbao.surfaces.cli.context import Context, Platform, actor, refusals_told

_FROM_FILE: Final = "_file"


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
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def channel_add(context: Context, file: Path) -> None:
    """Register the account a TOML file describes, and seal its keys.

    A key may be in a file of its own: merchant_private_key_pem_file = "apiclient_key.pem".
    """
    with refusals_told():
        account = read_account(file)

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            row = await add_account(tx, platform.keyring, platform.secret_types, account)
        opened = await platform.flow.account(row.id)
        return {"account": show("chn", row.id), "notify_url": opened.notify_url}

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


def _key(folder: Path, name: str, value: object) -> tuple[str, object]:
    """Return one key, read from the file beside the account's that it names."""
    if name.endswith(_FROM_FILE) and isinstance(value, str):
        return name.removesuffix(_FROM_FILE), (folder / value).read_text(encoding="utf-8")
    return name, value
