"""`tongbao people`: consent texts, authorities of client certificates, the rules in force."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import click
import msgspec

from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.parties.authentication.certificates import (
    ANCHOR_PREFIX,
    add_anchor,
    anchors,
    end_anchor,
    renew_crl,
    renew_crl_between,
)
from tongbao.parties.authentication.step_up import all_rules
from tongbao.parties.people.consents import Draft, publish_text
from tongbao.surfaces.cli.context import Context, Platform, actor, refusals_told

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


class ConsentDraftUnreadable(Invalid):
    """The file of a consent text is not TOML with a title and a body for zh and en."""

    code = "person.consent_draft_unreadable"
    advice = "Write [zh] and [en], each with title and body."
    advice_zh = "请为 [zh] 和 [en] 分别填写 title 与 body。"


@click.group()
def people() -> None:
    """People: what they agree to, whose certificates are believed, how acts are confirmed."""


@people.command("publish-text")
@click.argument("kind")
@click.argument("file", type=_FILE)
@click.option("--required/--optional", default=False, help="Whether an account rests on it.")
@click.pass_obj
def publish(context: Context, *, kind: str, file: Path, required: bool) -> None:
    """Put a new version of a consent text in force, in Chinese and English."""
    with refusals_told():
        drafts = _drafts(file)

    async def work(platform: Platform) -> int:
        async with platform.db.begin(actor()) as tx:
            return await publish_text(tx, kind, drafts, is_required=required)

    context.show({"kind": kind, "version": context.run(work)})


@people.command("add-anchor")
@click.argument("name")
@click.argument("file", type=_FILE)
@click.pass_obj
def anchor_added(context: Context, *, name: str, file: Path) -> None:
    """Believe the authority whose certificate this is (DER), and those it issues to clients."""
    der = file.read_bytes()

    async def work(platform: Platform) -> str:
        async with platform.db.begin(actor()) as tx:
            return show(ANCHOR_PREFIX, (await add_anchor(tx, name, der)).id)

    context.show({"anchor": context.run(work)})


@people.command("renew-crl")
@click.argument("anchor")
@click.argument("file", type=_FILE)
@click.option(
    "--of",
    "authority",
    type=_FILE,
    help="The certificate (DER) of an authority that the anchor vouches for, whose list it is.",
)
@click.pass_obj
def crl_renewed(context: Context, *, anchor: str, file: Path, authority: Path | None) -> None:
    """Take an authority's newest list of revoked certificates (DER)."""
    der, of = file.read_bytes(), authority.read_bytes() if authority else None

    async def work(platform: Platform) -> str:
        async with platform.db.begin(actor()) as tx:
            known = parse(ANCHOR_PREFIX, anchor)
            if of is None:
                until = await renew_crl(tx, known, der)
            else:
                until = await renew_crl_between(tx, known, of, der)
        return until.isoformat()

    context.show({"good_until": context.run(work)})


@people.command("end-anchor")
@click.argument("anchor")
@click.pass_obj
def anchor_ended(context: Context, *, anchor: str) -> None:
    """Believe an authority no more; its clients' certificates are refused at once."""

    async def work(platform: Platform) -> None:
        async with platform.db.begin(actor()) as tx:
            await end_anchor(tx, parse(ANCHOR_PREFIX, anchor))

    context.run(work)
    context.show({"ended": anchor})


@people.command("anchors")
@click.pass_obj
def anchors_listed(context: Context) -> None:
    """List the authorities that are believed, and until when their lists are good."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {
                "anchor": show(ANCHOR_PREFIX, each.id),
                "name": each.name,
                "fingerprint": each.fingerprint.hex(),
                "crl_until": each.crl_until.isoformat() if each.crl_until else None,
            }
            for each in await anchors(platform.db)
        ]

    context.show(context.run(work))


@people.command("rules")
@click.pass_obj
def rules_listed(context: Context) -> None:
    """List how strongly which act is confirmed, from when on, and which instrument says so."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        return [
            {**msgspec.to_builtins(each), "valid_from": each.valid_from.isoformat()}
            for each in await all_rules(platform.db)
        ]

    context.show(context.run(work))


def _drafts(file: Path) -> dict[Literal["zh", "en"], Draft]:
    try:
        read = msgspec.toml.decode(file.read_text("utf-8"), type=dict[Literal["zh", "en"], Draft])
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        raise ConsentDraftUnreadable(file=file.name) from None
    if set(read) != {"zh", "en"}:
        raise ConsentDraftUnreadable(file=file.name)
    return read
