"""Overview and keys: made with scopes, replaced with an overlap, ended; a secret shows once."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tongbao.infra.db import Tx
from tongbao.infra.outbox import events_of_merchant
from tongbao.infra.request_log.model import Wanted
from tongbao.infra.request_log.queries import lines_of_merchant
from tongbao.infra.webhooks.endpoints import endpoints_of
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Invalid, Rejected
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.developers.entering import check_still_there
from tongbao.parties.identity.keys import create_key, lock_key, revoke_key, roll_key, set_scopes
from tongbao.parties.identity.model import NewKey, scopes_under
from tongbao.parties.identity.queries import key_of_merchant, keys_of_merchant
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.surfaces.developer_portal.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply

KEYS_MAX: Final = 20
OVERLAPS: Final = {"0": timedelta(), "1h": timedelta(hours=1), "1d": timedelta(days=1)}
_SCOPE: Final = "scope:"
_NAME_MAX: Final = 64
_LATEST: Final = 8


class KeysTooMany(Rejected):
    """A test shop has at most 20 keys that are good."""

    code = "portal.keys_too_many"
    advice = "Revoke a key that is no longer needed."
    advice_zh = "可用密钥最多 20 个，请先吊销不再使用的密钥。"


class KeyFormIncomplete(Invalid):
    """A key has a name of 1 to 64 characters and at least one scope."""

    code = "portal.key_form_incomplete"
    advice = "Name the key and choose at least one scope."
    advice_zh = "请填写密钥名称，并至少选择一项权限。"


async def show_overview(visit: Visit) -> Reply:
    """Show where the developer stands and what to do next."""
    db, (merchant_id, mode) = visit.desk.db, visit.whose
    await visit.desk.request_log.write()
    keys = (await keys_of_merchant(db, merchant_id, mode, cursor=None, limit=100)).items
    lines = await lines_of_merchant(db, visit.whose, Wanted(), cursor=None, limit=_LATEST)
    events = await events_of_merchant(db, merchant_id=merchant_id, mode=mode, limit=_LATEST)
    facts = {
        "merchant": await merchant_with_id(db, merchant_id),
        "good_keys": [key for key in keys if key.is_good(real_now())],
        "lines": lines.items,
        "events": events.items,
        "endpoints": await endpoints_of(db, visit.owner),
    }
    return visit.page("overview.html", facts)


async def show_keys(visit: Visit) -> Reply:
    """List the keys, newest first, and offer to make one."""
    cursor = visit.request.query.get("cursor")
    page = await keys_of_merchant(visit.desk.db, *visit.whose, cursor=cursor, limit=20)
    now = real_now()
    facts = {
        "keys": [(key, key.is_good(now)) for key in page.items],
        "older": visit.further(page.next_cursor),
        "scopes": scopes_under(visit.desk.licence),
        "overlaps": list(OVERLAPS),
    }
    return visit.page("keys.html", facts)


async def make_key(visit: Visit) -> Reply:
    """Make a key and show its secret in this answer alone.

    Raises:
        KeyFormIncomplete, KeysTooMany, ScopeUnknown, DeveloperSessionEnded
    """
    name = " ".join(visit.request.form.get("name", "").split())
    scopes = _scopes(visit)
    if not 1 <= len(name) <= _NAME_MAX or not name.isprintable() or not scopes:
        raise KeyFormIncomplete
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        await check_still_there(tx, visit.developer)  # and locked, so that the limit holds
        await _check_room(tx, visit)
        made = await create_key(
            tx,
            visit.desk.keyring,
            visit.developer.merchant_id,
            Mode.SANDBOX,
            licence=visit.desk.licence,
            name=name,
            scopes=scopes,
        )
    return _show_secret(visit, made)


async def roll_one(visit: Visit) -> Reply:
    """Replace a key; for as long as the overlap both are good.

    Raises:
        KeyNotFound, KeyEnded
    """
    key_id = parse("key", visit.params["key_id"])
    old = await key_of_merchant(visit.desk.db, key_id, *visit.whose)
    overlap = OVERLAPS.get(visit.request.form.get("overlap", ""), OVERLAPS["1d"])
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        await check_still_there(tx, visit.developer)
        await _check_room(tx, visit)
        made = await roll_key(tx, visit.desk.keyring, old, overlap=overlap)
    return _show_secret(visit, made)


async def change_scopes(visit: Visit) -> Reply:
    """Let a key do these things and no others.

    Raises:
        KeyFormIncomplete, KeyNotFound, KeyEnded, ScopeUnknown
    """
    key_id, scopes = parse("key", visit.params["key_id"]), _scopes(visit)
    if not scopes:
        raise KeyFormIncomplete
    await key_of_merchant(visit.desk.db, key_id, *visit.whose)
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        await set_scopes(tx, await lock_key(tx, key_id), scopes, licence=visit.desk.licence)
    return visit.back_to("keys", "scopes_changed")


async def revoke_one(visit: Visit) -> Reply:
    """End a key now.

    Raises:
        KeyNotFound
    """
    async with visit.desk.db.begin(visit.developer.actor) as tx:
        await revoke_key(tx, *visit.whose, parse("key", visit.params["key_id"]))
    return visit.back_to("keys", "key_revoked")


async def _check_room(tx: Tx, visit: Visit) -> None:
    """Raise unless the shop may have one key more.

    Raises:
        KeysTooMany
    """
    good, cursor, now = 0, None, real_now()
    while True:
        page = await keys_of_merchant(tx, *visit.whose, cursor=cursor, limit=100)
        good += sum(key.is_good(now) for key in page.items)
        if good >= KEYS_MAX:
            raise KeysTooMany(keys_max=KEYS_MAX)
        if (cursor := page.next_cursor) is None:
            return


def _show_secret(visit: Visit, made: NewKey) -> Reply:
    facts = {"key": made.key, "secret": made.secret.reveal(), "is_first": False}
    return visit.page("key_made.html", facts)


def _scopes(visit: Visit) -> list[str]:
    """Return the scopes that were ticked: each has a field of its own."""
    form = visit.request.form
    return [name.removeprefix(_SCOPE) for name in form if name.startswith(_SCOPE)]
