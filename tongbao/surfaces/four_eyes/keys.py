"""`tongbao key`: merchants' keys; those to real money need a second person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from tongbao.controls.approvals.model import PREFIX, Approval
from tongbao.infra.db import Tx
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import create_key, lock_key, revoke_key
from tongbao.parties.identity.model import ApiKey, scopes_under
from tongbao.parties.live_keys.changes import (
    change_scopes,
    collect,
    propose_key,
    propose_revocation,
)
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_BECAUSE: Final = click.option(
    "--because", default="asked for by the merchant", show_default=True, help="Why."
)
_SCOPES_HELP: Final = "What it may do, as payments:write; repeatable."


@click.group()
def key() -> None:
    """API keys of merchants; a second person agrees to those of real money."""


@key.command("create")
@click.argument("merchant")
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="sandbox",
    show_default=True,
    help="Real money or test.",
)
@click.option(
    "--name",
    default="program",
    show_default=True,
    type=Text(64),
    help="What it is for, as the list of keys shows.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help=f"{_SCOPES_HELP} Default: all that the licence allows.",
)
@_BECAUSE
@click.pass_obj
def key_create(
    context: Context, *, merchant: str, mode: str, name: str, scopes: Sequence[str], because: str
) -> None:
    """Give a merchant a key; its secret is shown this once.

    A live key is proposed. Once somebody else has approved it, `tongbao key collect` shows it.
    """

    async def work(platform: Platform) -> dict[str, object]:
        licence = platform.settings.licence
        wanted = list(scopes) or list(scopes_under(licence))
        async with platform.db.begin(actor()) as tx:
            owner = await merchant_with_id(tx, parse("mch", merchant))
            if Mode(mode) is Mode.LIVE:
                asked = await propose_key(
                    tx, owner.id, licence=licence, name=name, scopes=wanted, reason=because
                )
                return _waiting(asked)
            made = await create_key(
                tx,
                platform.keyring,
                owner.id,
                Mode(mode),
                licence=licence,
                name=name,
                scopes=wanted,
            )
        return {"key": show("key", made.key.id), "secret": made.secret.reveal()}

    context.show(context.run(work))


@key.command("collect")
@click.argument("approval")
@click.pass_obj
def key_collect(context: Context, approval: str) -> None:
    """Show the secret of a live key that was approved: once, to the first who asks."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            made = await collect(tx, platform.keyring, parse(PREFIX, approval))
        return {"key": show("key", made.key.id), "secret": made.secret.reveal()}

    context.show(context.run(work))


@key.command("scopes")
@click.argument("key_id", metavar="KEY")
@click.option("--scope", "scopes", multiple=True, required=True, help=_SCOPES_HELP)
@_BECAUSE
@click.pass_obj
def key_scopes(context: Context, *, key_id: str, scopes: Sequence[str], because: str) -> None:
    """Say anew what a key may do; a live key gains nothing before somebody else agrees."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            done = await change_scopes(
                tx,
                parse("key", key_id),
                scopes,
                licence=platform.settings.licence,
                reason=because,
            )
        return _waiting(done) if isinstance(done, Approval) else _facts(done)

    context.show(context.run(work))


@key.command("revoke")
@click.argument("key_id", metavar="KEY")
@_BECAUSE
@click.pass_obj
def key_revoke(context: Context, key_id: str, because: str) -> None:
    """End a key: a sandbox key at once, a live key when somebody else agrees."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            return await _ended(tx, key_id, because)

    context.show(context.run(work))


async def _ended(tx: Tx, key_id: str, because: str) -> dict[str, object]:
    found = await lock_key(tx, parse("key", key_id))
    if found.mode is Mode.LIVE:
        return _waiting(await propose_revocation(tx, found.id, reason=because))
    return _facts(await revoke_key(tx, found.merchant_id, found.mode, found.id))


def _waiting(asked: Approval) -> dict[str, object]:
    return {"approval": asked.shown_id, "act": asked.act, "state": asked.state.value}


def _facts(found: ApiKey) -> dict[str, object]:
    state = "revoked" if found.revoked_at else "active"
    return {"key": show("key", found.id), "state": state, "scopes": " ".join(found.scopes)}
