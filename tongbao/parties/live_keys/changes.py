"""Propose what becomes of a live key, do it once approved, and hand its secret over once.

A merchant's own program replaces and revokes its keys over the API without us; a merchant that was
taken on has its first key from that approval.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.kernel.licence import Licence, Mode
from tongbao.parties.identity.keys import (
    create_key,
    lock_key,
    revoke_key,
    secret_of_key,
    set_scopes,
)
from tongbao.parties.identity.model import ApiKey, NewKey, check_scopes
from tongbao.parties.identity.queries import key_of_merchant
from tongbao.parties.live_keys import _store as store
from tongbao.parties.live_keys.model import (
    CREATE,
    REVOKE,
    WIDEN,
    KeyChanged,
    KeyCollected,
    KeyNotMadeYet,
    NewKeyTerms,
    RevocationTerms,
    ScopesAsBefore,
    WideningTerms,
)
from tongbao.parties.merchants.merchants import lock_merchant
from tongbao.parties.merchants.model import MerchantStandsOtherwise, MerchantState

_NO_SCOPES: Final = "—"


async def propose_key(
    tx: Tx,
    merchant_id: UUID,
    *,
    licence: Licence,
    name: str,
    scopes: Sequence[str],
    reason: str,
    may: Collection[str] | None = None,
) -> Approval:
    """Propose a live key for a merchant; one at a time.

    Raises:
        MerchantNotFound, MerchantStandsOtherwise, ScopeUnknown, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    merchant = await lock_merchant(tx, merchant_id)
    if merchant.state is MerchantState.GONE:
        raise MerchantStandsOtherwise(status=merchant.state.value)
    shown = show("mch", merchant_id)
    terms = NewKeyTerms(shown, merchant.name, name, check_scopes(scopes, licence))
    return await propose(
        tx,
        CREATE,
        shown,
        terms,
        reason=reason,
        merchant_id=merchant_id,
        mode=Mode.LIVE,
        may=may,
    )


async def propose_revocation(
    tx: Tx, key_id: UUID, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose that a live key ends.

    Raises:
        KeyNotFound, KeyEnded, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    key = await lock_key(tx, key_id)
    terms = RevocationTerms(show("mch", key.merchant_id), key.name, key.secret_tail)
    return await propose(
        tx,
        REVOKE,
        show("key", key.id),
        terms,
        reason=reason,
        merchant_id=key.merchant_id,
        mode=key.mode,
        may=may,
    )


async def change_scopes(
    tx: Tx,
    key_id: UUID,
    scopes: Sequence[str],
    *,
    licence: Licence,
    reason: str,
    may: Collection[str] | None = None,
) -> ApiKey | Approval:
    """Change what a key may do: at once, or, where a live key gains anything, by an approval.

    Raises:
        KeyNotFound, KeyEnded, ScopeUnknown, ScopesAsBefore, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    key, wanted = await lock_key(tx, key_id), check_scopes(scopes, licence)
    if wanted == sorted(key.scopes):
        raise ScopesAsBefore(param="$.scopes")
    if key.mode is not Mode.LIVE or set(wanted) < set(key.scopes):
        return await set_scopes(tx, key, wanted, licence=licence)
    merchant = show("mch", key.merchant_id)
    terms = WideningTerms(merchant, key.name, key.secret_tail, sorted(key.scopes), wanted)
    return await propose(
        tx,
        WIDEN,
        show("key", key.id),
        terms,
        reason=reason,
        merchant_id=key.merchant_id,
        mode=key.mode,
        may=may,
    )


async def collect(tx: Tx, keyring: Keyring, approval_id: UUID) -> NewKey:
    """Return the key an approval made, with its secret, to the first who asks.

    The commit says who has it, so the secret is shown after that and never again. A caller that
    dies between the two has lost it: the key is replaced, or revoked and another proposed.

    Raises:
        KeyNotMadeYet, KeyCollected, KeyEnded
    """
    found = await store.COLLECT.first(tx, approval_id, tx.now, tx.actor)
    if found is None:
        raise KeyCollected if await store.GET.first(tx, approval_id) else KeyNotMadeYet
    key = await lock_key(tx, found.key_id)
    facts = {"approval": show("apv", approval_id)}
    await audit.record(tx, "api_key.collected", show("key", key.id), facts)
    failpoint("live_keys.before_collection_commit")
    return NewKey(key, secret_of_key(keyring, key))


def bound_acts(db: Db, keyring: Keyring, licence: Licence) -> tuple[Bound, ...]:
    """Return the acts on live keys with what does them."""

    async def create(tx: Tx, approval: Approval, terms: NewKeyTerms) -> None:
        merchant = await lock_merchant(tx, parse("mch", terms.merchant))
        if merchant.state is MerchantState.GONE:
            raise MerchantStandsOtherwise(status=merchant.state.value)
        made = await create_key(
            tx,
            keyring,
            merchant.id,
            Mode.LIVE,
            licence=licence,
            name=terms.name,
            scopes=terms.scopes,
            key_id=derived_id(approval.id, "key"),
        )
        await store.INSERT.run(tx, approval.id, made.key.id)

    async def widen(tx: Tx, approval: Approval, terms: WideningTerms) -> None:
        key = await lock_key(tx, parse("key", approval.subject))
        if sorted(key.scopes) != terms.before:
            raise KeyChanged
        await set_scopes(tx, key, terms.after, licence=licence)

    async def revoke(tx: Tx, approval: Approval, terms: RevocationTerms) -> None:
        key_id = parse("key", approval.subject)
        await revoke_key(tx, parse("mch", terms.merchant), Mode.LIVE, key_id)

    return (
        Bound(CREATE, in_transaction(db, create), _show_new),
        Bound(WIDEN, in_transaction(db, widen), _show_wider),
        Bound(REVOKE, in_transaction(db, revoke), _show_end),
    )


async def _show_new(_db: Db, _approval: Approval, terms: NewKeyTerms) -> list[Change]:
    return [
        Change("merchant", "商户", None, f"{terms.firm} ({terms.merchant})"),
        Change("name", "名称", None, terms.name),
        Change("may", "权限", None, ", ".join(terms.scopes)),
    ]


async def _show_wider(db: Db, approval: Approval, terms: WideningTerms) -> list[Change]:
    merchant_id, key_id = parse("mch", terms.merchant), parse("key", approval.subject)
    key = await key_of_merchant(db, key_id, merchant_id, Mode.LIVE)
    before, after = set(key.scopes), set(terms.after)
    return [
        *_which(terms.merchant, terms.name, terms.secret_tail),
        Change("may also", "新增权限", None, ", ".join(sorted(after - before)) or _NO_SCOPES),
        Change("may no more", "取消权限", None, ", ".join(sorted(before - after)) or _NO_SCOPES),
    ]


async def _show_end(_db: Db, _approval: Approval, terms: RevocationTerms) -> list[Change]:
    return [
        *_which(terms.merchant, terms.name, terms.secret_tail),
        Change("state", "状态", "active", "revoked", "有效", "吊销"),
    ]


def _which(merchant: str, name: str, tail: str) -> list[Change]:
    return [
        Change("merchant", "商户", None, merchant),
        Change("key", "密钥", None, f"{name} (…{tail})"),
    ]
