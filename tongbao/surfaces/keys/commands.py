"""`tongbao kms`: master keys, sealing keys, what uses them, and ceremonies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click

from tongbao.controls.approvals.model import PREFIX as APPROVAL
from tongbao.controls.approvals.model import Approval
from tongbao.controls.keys.ceremonies import (
    abandon,
    ceremonies,
    enter_component,
    is_certified,
    noted_keys,
    propose_destruction,
    propose_rotation,
)
from tongbao.controls.keys.model import PREFIX, Ceremony
from tongbao.infra.crypto import PURPOSES, Algorithm
from tongbao.infra.kms.model import PREFIX as SEALING_KEY
from tongbao.infra.kms.rewrapping import rewrap_all
from tongbao.infra.kms.sealing_keys import list_sealing_keys
from tongbao.kernel.ids import parse, show
from tongbao.surfaces.cli.context import Context, Platform, acting_as, actor

_BECAUSE: Final = click.option("--because", required=True, help="Why, for those who read it later.")
_BITS: Final[Mapping[Algorithm, int]] = {
    Algorithm.AES_256_GCM: 256,
    Algorithm.GCM_UNDER_SEALING_KEY: 128,
    Algorithm.HMAC_SHA_256: 256,
    Algorithm.HMAC_SM3: 256,
    Algorithm.ED25519: 256,
    Algorithm.SM2: 256,
    Algorithm.SHAKE_256: 256,
}
"""The least size of a key in bits; what is not here has none."""


@click.group()
def kms() -> None:
    """Keys of the platform: master keys, sealing keys and what they are for. None is ever shown."""


@kms.command("list")
@click.pass_obj
def kms_list(context: Context) -> None:
    """List the master keys, the one that wraps first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        there = {each.id for each in platform.keys.kms.master_keys()}
        async with platform.db.begin(actor()) as tx:
            known = await noted_keys(tx, platform.keys.kms)
        return [
            {
                "key": each.id,
                "version": each.version,
                "kept_by": each.provider,
                "algorithm": each.algorithm,
                "since": each.noted_at.isoformat(),
                "wraps_until": each.expires_at.isoformat(),
                "ceremony": show(PREFIX, each.ceremony_id) if each.ceremony_id else "",
                "there": each.id in there,
            }
            for each in known
        ]

    context.show(context.run(work))


@kms.command("purposes")
@click.pass_obj
def kms_purposes(context: Context) -> None:
    """List every use of cryptography: the purpose, its algorithm, and whose key it has."""
    context.show(
        [
            {
                "purpose": each.name,
                "algorithm": each.algorithm.value,
                "bits_min": _BITS.get(each.algorithm, 0),
                "key": each.key,
                "meaning": each.meaning,
            }
            for each in PURPOSES.values()
        ]
    )


@kms.command("sealing-keys")
@click.option("--limit", default=50, show_default=True, help="How many of the newest.")
@click.pass_obj
def kms_sealing_keys(context: Context, limit: int) -> None:
    """List sealing keys, newest first, and how many an older master key still wraps."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        page = await list_sealing_keys(platform.db, cursor=None, limit=limit)
        left = await platform.keys.sealing_keys.left(platform.db)
        lines: list[dict[str, object]] = [{"keys": left.all_of_them, "to_rewrap": left.waiting}]
        return lines + [
            {
                "key": show(SEALING_KEY, each.id),
                "owner": show("mch", each.merchant_id) if each.merchant_id else "",
                "mode": each.mode.value if each.mode else "",
                "purpose": each.purpose,
                "month": each.month,
                "master_key": each.master_key,
                "created": each.created_at.isoformat(),
                "destroyed": each.destroyed_at.isoformat() if each.destroyed_at else "",
                "because": each.destroyed_because or "",
            }
            for each in page.items
        ]

    context.show(context.run(work))


@kms.command("rotate")
@_BECAUSE
@click.pass_obj
def kms_rotate(context: Context, because: str) -> None:
    """Propose to go on to a new master key.

    Once another person has approved it, two custodians enter their components with `tongbao kms
    enter`; a security module makes the key itself.
    """

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            return _waiting(await propose_rotation(tx, platform.keys.kms, reason=because))

    context.show(context.run(work))


@kms.command("destroy")
@click.argument("key")
@_BECAUSE
@click.pass_obj
def kms_destroy(context: Context, key: str, because: str) -> None:
    """Propose to destroy a sealing key. Nothing that was sealed under it can be read ever again."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            found = parse(SEALING_KEY, key)
            return _waiting(await propose_destruction(tx, found, reason=because))

    context.show(context.run(work))


@kms.command("ceremonies")
@click.pass_obj
def kms_ceremonies(context: Context) -> None:
    """List the ceremonies, newest first, and whether the record of each still holds."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [_line(platform, each) for each in await ceremonies(platform.db)]

    context.show(context.run(work))


@kms.command("enter")
@click.argument("ceremony")
@click.option("--as", "login", required=True, help="The login name of the custodian.")
@click.password_option("--password", confirmation_prompt=False, help="Asked for when left out.")
@click.option("--code", prompt=True, help="The six digits of the authenticator.")
@click.pass_obj
def kms_enter(context: Context, /, ceremony: str, **who: str) -> None:
    """Enter a custodian's component of a new master key.

    It is asked for and not shown: 64 hexadecimal digits, drawn by `openssl rand -hex 32`. Compare
    the check value with the one that was written down with the component.
    """
    text = str(click.prompt("Component", hide_input=True))

    async def work(platform: Platform) -> dict[str, object]:
        async with (
            acting_as(platform, **who) as custodian,
            platform.db.begin(custodian.actor) as tx,
        ):
            found, check = await enter_component(
                tx, platform.keys.kms, platform.keyring, parse(PREFIX, ceremony), text
            )
        return {"check": check, **_line(platform, found)}

    context.show(context.run(work))


@kms.command("abandon")
@click.argument("ceremony")
@click.pass_obj
def kms_abandon(context: Context, ceremony: str) -> None:
    """End an open ceremony without a key."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            return _line(platform, await abandon(tx, parse(PREFIX, ceremony)))

    context.show(context.run(work))


@kms.command("rewrap")
@click.pass_obj
def kms_rewrap(context: Context) -> None:
    """Wrap anew now what older master keys have wrapped. The worker does so by itself, too."""

    async def work(platform: Platform) -> dict[str, object]:
        lines = platform.keys.wrap_lines()
        done = await rewrap_all(platform.db, platform.keys.sealing_keys)
        left = await platform.keys.sealing_keys.left(platform.db)
        return {"sealing_keys": done, "lines_of_the_key_file": lines, "left": left.waiting}

    context.show(context.run(work))


def _waiting(asked: Approval) -> dict[str, object]:
    return {"approval": show(APPROVAL, asked.id), "act": asked.act, "state": asked.state.value}


def _line(platform: Platform, each: Ceremony) -> dict[str, object]:
    return {
        "ceremony": show(PREFIX, each.id),
        "state": each.state,
        "approval": show(APPROVAL, each.approval_id),
        "custodians": " ".join(filter(None, (each.first_custodian, each.second_custodian))),
        "checks": " ".join(filter(None, (each.first_check, each.second_check))),
        "master_key": each.master_key or "",
        "record_holds": is_certified(platform.keys.kms, each),
    }
