"""Where a partner is told of its consents: one address, agreed by two people with its other terms.

It is a webhook endpoint whose owner is the partner: signed with a key of its own, tried for three
days, replayed by people. The partner verifies by the public key (`v1a`), so no secret is sent.
"""

from __future__ import annotations

from typing import Final

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.webhooks.endpoints import (
    Owner,
    create_endpoint,
    delete_endpoint,
    enable_endpoint,
    endpoints_of,
    public_keys_of,
)
from tongbao.infra.webhooks.model import (
    EndpointState,
    UrlNotAllowed,
    WebhookEndpoint,
    WebhookRules,
    check_url,
)
from tongbao.kernel.licence import Mode
from tongbao.parties.partners.model import Partner, PartnerTermsInvalid

TOLD: Final = frozenset(
    f"consent.{each}" for each in ("authorised", "revoked", "expired", "suspended", "resumed")
)
"""What partners are told of; who carries it checks at every try that it leaves this machine, where
it has to."""
_RULES: Final = WebhookRules(TOLD, loopback_allowed=True)


def check_webhook(url: str | None, mode: Mode) -> None:
    """Raise unless a partner may be told there: https, and in the sandbox also this very machine.

    Raises:
        PartnerTermsInvalid
    """
    try:
        if url is not None:
            check_url(url, mode, _RULES)
    except UrlNotAllowed:
        raise PartnerTermsInvalid(param="$.webhook_url") from None


async def set_webhook(tx: Tx, keyring: Keyring, owner: Owner, url: str | None) -> None:
    """Have a partner be told there and nowhere else; at the same address anew if it had failed."""
    known = await endpoints_of(tx, owner)
    for each in known:
        if each.url != url:
            await delete_endpoint(tx, owner, each.id)
        elif each.state is not EndpointState.ENABLED:
            await enable_endpoint(tx, owner, each.id)
    if url is not None and url not in {each.url for each in known}:
        await create_endpoint(tx, keyring, _RULES, owner, url=url, event_types=sorted(TOLD))


async def webhook_of(on: Db | Tx, partner: Partner) -> WebhookEndpoint | None:
    """Return where a partner is told, if anywhere."""
    known = await endpoints_of(on, Owner(partner.id, partner.mode))
    return known[0] if known else None


async def webhook_keys_of(db: Db, endpoint: WebhookEndpoint) -> list[str]:
    """Return the public keys that a partner verifies what it is told by."""
    return await public_keys_of(db, endpoint.id, db.clock.now())
