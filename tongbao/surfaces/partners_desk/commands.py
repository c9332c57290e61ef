"""`tongbao partners`: third parties of the open bank, taken on and changed by two people."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from msgspec import Struct

from tongbao.infra.admission.rate_limits import RateLimit
from tongbao.infra.admission.rate_shares import set_rate_limit
from tongbao.infra.jose import thumbprint
from tongbao.infra.webhooks.deliveries import deliveries_of_endpoint, replay_range
from tongbao.infra.webhooks.endpoints import Owner
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.partners.message_keys import renew_key
from tongbao.parties.partners.model import PREFIX, Changing, PartnerState, Proving, TakingOn
from tongbao.parties.partners.notices import webhook_keys_of, webhook_of
from tongbao.parties.partners.partners import (
    partner_with_id,
    propose_change,
    propose_partner,
    suspend_partner,
)
from tongbao.parties.partners.partners import partners as all_partners
from tongbao.surfaces.cli.context import Context, Platform, actor, refusals_told

_AGAIN: Final = timedelta(days=7)
_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


class PartnerDraftUnreadable(Invalid):
    """The file of a partner is not JSON of the form that partners have."""

    code = "partner.draft_unreadable"
    advice = "Write name, redirect_uris, kinds and jwks, as the how-to on partners shows."
    advice_zh = "请按合作方说明填写 name、redirect_uris、kinds 与 jwks。"


class _KeySet(Struct, frozen=True):
    keys: list[dict[str, Any]]


class _Draft(Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    redirect_uris: list[str]
    kinds: list[str]
    jwks: _KeySet = _KeySet([])
    proving: Proving = Proving()
    webhook_url: str | None = None


@click.group("partners")
def partners() -> None:
    """Partners of the open bank: third parties that ask for accounts with people's consent."""


@partners.command("list")
@click.pass_obj
def list_partners(context: Context) -> None:
    """Show every partner, what it may ask for and the keys it signs with."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        known = await all_partners(platform.db)
        told = {each.id: await webhook_of(platform.db, each) for each in known}
        urls = {partner: webhook.url for partner, webhook in told.items() if webhook}
        return [
            {
                "client_id": each.client_id,
                "name": each.name,
                "mode": each.mode.value,
                "state": each.state.value,
                "kinds": " ".join(each.kinds),
                "redirect_uris": " ".join(each.redirect_uris),
                "told_at": urls.get(each.id, ""),
                "proves": " ".join(filter(None, (each.auth_method, each.certificate_name))),
                "bound_to": "certificate" if each.binds_certificate else "dpop",
                "signs_requests": each.signs_requests,
                "keys": " ".join(f"{key['kid']}:{thumbprint(key)[:16]}" for key in each.jwks),
            }
            for each in known
        ]

    context.show(context.run(work))


@partners.command("take-on")
@click.argument("file", type=_FILE)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="sandbox",
    show_default=True,
    help="Real accounts or test.",
)
@click.option("--because", required=True, help="Why, for whoever decides and the audit log.")
@click.pass_obj
def take_on(context: Context, *, file: Path, mode: str, because: str) -> None:
    """Propose a partner from a file; it is one once somebody else has approved it."""
    with refusals_told():
        draft = _draft(file)

    async def work(platform: Platform) -> dict[str, object]:
        keys = draft.jwks.keys
        agreed = (draft.kinds, draft.proving, draft.webhook_url)
        terms = TakingOn(draft.name, Mode(mode), draft.redirect_uris, keys, *agreed)
        async with platform.db.begin(actor()) as tx:
            waiting = await propose_partner(tx, terms, reason=because)
        return {"approval": waiting.shown_id, "name": draft.name, "mode": mode}

    context.show(context.run(work))


@partners.command("change")
@click.argument("partner")
@click.argument("file", type=_FILE)
@click.option(
    "--state",
    type=click.Choice([state.value for state in PartnerState]),
    default="active",
    show_default=True,
    help="How it shall stand; gone is for good.",
)
@click.option("--because", required=True, help="Why, for whoever decides and the audit log.")
@click.pass_obj
def change(context: Context, *, partner: str, file: Path, state: str, because: str) -> None:
    """Propose other keys, addresses or kinds for a partner, or that it comes back or goes."""
    with refusals_told():
        draft = _draft(file)

    async def work(platform: Platform) -> dict[str, object]:
        found = await partner_with_id(platform.db, parse(PREFIX, partner))
        wanted = Changing(
            *(draft.name, draft.redirect_uris, draft.jwks.keys, draft.kinds),
            state=PartnerState(state),
            changed_at=found.changed_at,
            proving=draft.proving,
            webhook_url=draft.webhook_url,
        )
        async with platform.db.begin(actor()) as tx:
            waiting = await propose_change(tx, found.id, wanted, reason=because)
        return {"approval": waiting.shown_id, "client_id": found.client_id, "state": state}

    context.show(context.run(work))


@partners.command("notices")
@click.argument("partner")
@click.option("--again", is_flag=True, help="Send again what has failed in the last seven days.")
@click.pass_obj
def notices(context: Context, *, partner: str, again: bool) -> None:
    """Show what a partner was told of its consents, the newest first, and by which key."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        db, found = platform.db, await partner_with_id(platform.db, parse(PREFIX, partner))
        webhook = await webhook_of(db, found)
        if webhook is None:
            return []
        owner, now = Owner(found.id, found.mode), db.clock.now()
        if again:
            async with db.begin(actor()) as tx:
                await replay_range(tx, owner, webhook.id, since=now - _AGAIN, until=now)
        keys = " ".join(await webhook_keys_of(db, webhook))
        page = await deliveries_of_endpoint(db, owner, webhook.id)
        return [
            {
                "event": each.event_type,
                "consent": each.resource_id,
                "state": each.state.value,
                "attempts": each.attempts,
                "at": each.created_at.isoformat(),
                "url": webhook.url,
                "public_key": keys,
            }
            for each in page.items
        ]

    context.show(context.run(work))


@partners.command("renew-key")
@click.pass_obj
def renew(context: Context) -> None:
    """Sign answers to partners by a new key; the one before is published for seven days still."""

    async def work(platform: Platform) -> dict[str, object]:
        return {"kid": await renew_key(platform.db, platform.keyring, actor())}

    context.show(context.run(work))


@partners.command("suspend")
@click.argument("partner")
@click.option("--because", required=True, help="Why, for the audit log.")
@click.pass_obj
def suspend(context: Context, *, partner: str, because: str) -> None:
    """Let a partner do nothing any more, at once; to let it come back takes two people."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            found = await suspend_partner(tx, parse(PREFIX, partner), reason=because)
        return {"client_id": found.client_id, "state": found.state.value}

    context.show(context.run(work))


@partners.command("rate-limit")
@click.argument("partner")
@click.option(
    "--units-per-s", type=click.IntRange(1, 1_000_000), required=True, help="Requests a second."
)
@click.option("--burst", type=click.IntRange(1, 10_000_000), required=True, help="At once.")
@click.option("--units-per-day", type=click.IntRange(1), help="A daily quota; none unless given.")
@click.pass_obj
def rate_limit(context: Context, /, partner: str, **units: int | None) -> None:
    """Say how much a partner may ask; heard of within seconds."""
    limit = msgspec.convert(units, RateLimit)

    async def work(platform: Platform) -> dict[str, object]:
        found = await partner_with_id(platform.db, parse(PREFIX, partner))
        async with platform.db.begin(actor()) as tx:
            await set_rate_limit(tx, (found.id, found.mode), limit, found.client_id)
        return {"client_id": found.client_id, **units}

    context.show(context.run(work))


def _draft(file: Path) -> _Draft:
    """Return the partner in a file.

    Raises:
        PartnerDraftUnreadable
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Draft)
    except msgspec.DecodeError:
        raise PartnerDraftUnreadable from None
