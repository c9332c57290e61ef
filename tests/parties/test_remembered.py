"""Whatever changes a key, a merchant or who serves it marks it in the same commit."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import tongbao
from tests.parties.conftest import LICENCE
from tongbao.infra import changes as changes_module
from tongbao.infra import lookups
from tongbao.infra.changes import BOUND_S, Changes
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Query, Statement, Tx
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import (
    RecentKeys,
    create_key,
    revoke_key,
    roll_key,
    set_scopes,
)
from tongbao.parties.identity.model import NewKey
from tongbao.parties.merchants.merchants import set_suspended
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan

ROOT = Path(tongbao.__file__).parent
MARKED = Query(int, "select coalesce(sum(version), 0)::bigint as version from change_mark")
STORES = {
    "tongbao.parties.identity": ("keys", "api_key"),
    "tongbao.parties.merchants": ("merchants", "merchant|channel_route"),
    "tongbao.parties.price_plans": ("plans", "price_plan"),
    "tongbao.rails.channels": ("accounts", "channel_account"),
    "tongbao.payments.routing": ("rule_sets", "routing_rule_set"),
}
"""Where each table that is remembered is written, and by which module."""
UNREMEMBERED = {"INSERT_KEY", "NOTE_KEY_USE", "INSERT_MERCHANT"}
"""Nothing is remembered of what is not there yet, and a key's last use is told to nobody."""


@pytest.fixture
async def key(db: Db, keyring: Keyring, merchant: Merchant) -> NewKey:
    async with db.begin("test") as tx:
        return await create_key(
            tx,
            keyring,
            merchant.id,
            Mode.SANDBOX,
            licence=LICENCE,
            name="till",
            scopes=["payments:read"],
        )


async def test_a_revoked_key_is_refused_as_soon_as_it_is_heard_of_and_else_within_the_bound(
    db: Db, keyring: Keyring, key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(changes_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(lookups, "monotonic", lambda: now[0])
    hearing, cut_off = Changes(db), Changes(db)
    await hearing.hear()
    await cut_off.hear()
    near, far = RecentKeys(db, keyring, hearing), RecentKeys(db, keyring, cut_off)
    for keys in (near, far):
        found = await keys.find(key.key.id)
        assert found is not None
        assert not found.revoked
    async with db.begin("test") as tx:
        await revoke_key(tx, key.key.merchant_id, Mode.SANDBOX, key.key.id)

    await hearing.hear()
    heard, unheard = await near.find(key.key.id), await far.find(key.key.id)
    now[0] += BOUND_S
    late = await far.find(key.key.id)

    assert heard is not None
    assert unheard is not None
    assert late is not None
    assert (heard.revoked, unheard.revoked, late.revoked) == (True, False, True)


async def test_a_key_ends_by_itself_however_long_it_is_remembered(
    db: Db, keyring: Keyring, key: NewKey
) -> None:
    async with db.begin("test") as tx:
        await roll_key(tx, keyring, key.key, overlap=timedelta(minutes=5))

    found = await RecentKeys(db, keyring).find(key.key.id)

    assert found is not None
    assert not found.revoked
    assert found.ends_at is not None


Act = Callable[[Tx, Keyring, Merchant, NewKey], Awaitable[object]]
ACTS: dict[str, Act] = {
    "revoke": lambda tx, _, m, key: revoke_key(tx, m.id, Mode.SANDBOX, key.key.id),
    "scopes": lambda tx, _, __, key: set_scopes(tx, key.key, ["events:read"], licence=LICENCE),
    "roll": lambda tx, keyring, _, key: roll_key(tx, keyring, key.key, overlap=timedelta()),
    "suspend": lambda tx, _, m, __: set_suspended(tx, m.id, suspended=True, because="test"),
    "price": lambda tx, _, m, __: set_price_plan(
        tx, m.id, Mode.SANDBOX, [PriceLine("alipay", "qr", 6_000)]
    ),
}


@pytest.mark.parametrize("act", ACTS)
async def test_each_change_leaves_a_mark(
    db: Db, keyring: Keyring, merchant: Merchant, key: NewKey, act: str
) -> None:
    before = await MARKED.one(db)

    async with db.begin("test") as tx:
        await ACTS[act](tx, keyring, merchant, key)

    assert await MARKED.one(db) > before


@pytest.mark.parametrize("package", STORES)
def test_no_statement_writes_what_is_remembered_without_a_mark(package: str) -> None:
    """Read from the program: each function that runs such a statement marks it as well."""
    name, tables = STORES[package]
    store, module = import_module(f"{package}._store"), import_module(f"{package}.{name}")
    writes = {
        each
        for each, statement in vars(store).items()
        if isinstance(statement, Query | Statement)
        and re.search(rf"(update|insert into|delete from)\s+({tables})\s", statement.sql)
    }
    assert writes

    unmarked = {
        each
        for each in writes - UNREMEMBERED
        for function in functions_with(module, f"store.{each}")
        if "mark(" not in function and "_note(" not in function
    }

    assert unmarked == set()
    used = {each for each in writes if list(functions_with(module, f"store.{each}"))}
    assert used == writes, "and nobody else runs one"


def functions_with(module: ModuleType, text: str) -> list[str]:
    """Return the source of each function of a module with these words in it."""
    source = inspect.getsource(module)
    return [
        part
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.AsyncFunctionDef)
        and (part := ast.get_source_segment(source, node)) is not None
        and re.search(rf"{re.escape(text)}\b", part)
    ]


def test_balances_are_never_remembered() -> None:
    """Neither by the ledger nor by whoever keeps accounts, wallets and limits."""
    places = ("ledger", "parties/accounts", "parties/e_accounts", "controls/limits")
    modules = [each for place in places for each in (ROOT / place).rglob("*.py")]
    assert len(modules) > 20

    assert [each for each in modules if "Remembered" in each.read_text()] == []
