"""Propose a new master key, put it together from two components, and destroy sealing keys.

The key is put in the file, then the ceremony is closed in the database. Whoever dies between the
two leaves an open ceremony: the second custodian enters the component again, which makes the same
key, and a key that is there already stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import PREFIX as APPROVAL
from tongbao.controls.approvals.model import Approval, Bound, Change, Effect
from tongbao.controls.keys import _store as store
from tongbao.controls.keys.model import (
    CRYPTOPERIOD,
    DESTROY,
    PREFIX,
    ROTATE,
    Ceremony,
    CeremonyNotFound,
    CeremonyOver,
    CeremonyUnderWay,
    Certificate,
    ComponentsNotTaken,
    DestructionTerms,
    NotedKey,
    RotationTerms,
    SameCustodian,
    check_value,
    combined,
    read_component,
)
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.kms import sealing_keys
from tongbao.infra.kms.model import PREFIX as SEALING_KEY
from tongbao.infra.kms.model import SealingKeyDestroyed
from tongbao.infra.kms.port import Kms, MasterKey
from tongbao.infra.kms.rewrapping import RewrapSealingKeys
from tongbao.infra.tasks import enqueue
from tongbao.kernel.errors import Fact
from tongbao.kernel.ids import derived_id, parse, show

_PURPOSE: Final = "kms.component"


async def propose_rotation(
    tx: Tx, kms: Kms, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose to go on to a new master key.

    Raises:
        MakerNotAllowed, ReasonTooShort, ApprovalWaiting, KmsUnavailable
    """
    now = kms.master_keys()[0]
    terms = RotationTerms(kms.provider, now.id, now.version)
    return await propose(tx, ROTATE, "master_key", terms, reason=reason, may=may)


async def propose_destruction(
    tx: Tx, key_id: UUID, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose that a sealing key is destroyed, and with it everything that was sealed under it.

    Raises:
        SealingKeyNotFound, SealingKeyDestroyed, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    key = await sealing_keys.sealing_key(tx, key_id)
    shown = show(SEALING_KEY, key_id)
    if key.wrapped is None:
        raise SealingKeyDestroyed(key=shown)
    owner = "" if key.merchant_id is None else show("mch", key.merchant_id)
    terms = DestructionTerms(shown, owner, key.purpose, key.month)
    return await propose(
        tx,
        DESTROY,
        shown,
        terms,
        reason=reason,
        merchant_id=key.merchant_id,
        mode=key.mode,
        may=may,
    )


def bound_acts(db: Db, kms: Kms, wrap_lines: Callable[[], int]) -> tuple[Bound, ...]:
    """Return the acts on keys with what does them.

    ``wrap_lines`` wraps the key file's lines anew after a security module has a new master key.
    """

    async def rotate(effect: Effect) -> None:
        made: MasterKey | None = None
        if not kms.takes_components:
            made = kms.rotate(None, effect.approval.id.hex)  # a repeat finds the same key
            wrap_lines()
            failpoint("keys.before_rotation_commit")
        async with db.begin(effect.actor) as tx:
            await effect.close(tx)
            if made is not None:
                await _noted(tx, kms, None)
                await _go_on(tx, made)
                return
            ceremony_id = derived_id(effect.approval.id, "ceremony")
            if not await store.OPEN.run(tx, ceremony_id, effect.approval.id, tx.now):
                raise CeremonyUnderWay
            facts = {"approval": effect.approval.shown_id}
            await audit.record(tx, "key_ceremony.opened", show(PREFIX, ceremony_id), facts)

    async def destroy(tx: Tx, approval: Approval, terms: DestructionTerms) -> None:
        await sealing_keys.destroy(tx, parse(SEALING_KEY, terms.key), because=approval.reason)

    return (
        Bound(ROTATE, rotate, _show_rotation),
        Bound(DESTROY, in_transaction(db, destroy), _show_destruction),
    )


async def enter_component(
    tx: Tx, kms: Kms, keyring: Keyring, ceremony_id: UUID, text: str
) -> tuple[Ceremony, str]:
    """Take one custodian's component; return the ceremony and the component's check value.

    The second one completes it: the key is made, and nothing of the components is kept. The
    custodian is the transaction's actor.

    Raises:
        CeremonyNotFound, CeremonyOver, SameCustodian, ComponentMalformed, ComponentsAlike,
        ComponentsNotTaken, KeyFileUnreadable
    """
    if not kms.takes_components:
        raise ComponentsNotTaken
    component = read_component(text)
    ceremony, check = await _locked(tx, ceremony_id), check_value(component)
    if ceremony.first_custodian is None or ceremony.component_sealed is None:
        sealed = keyring.seal(_PURPOSE, component, _place(ceremony_id))
        first = await store.FIRST.one(tx, ceremony_id, tx.actor, check, tx.now, sealed)
        await _say(tx, first, "key_ceremony.first_component", {"check": check})
        return first, check
    if ceremony.first_custodian == tx.actor:
        raise SameCustodian
    other = keyring.open(_PURPOSE, ceremony.component_sealed, _place(ceremony_id))
    made = kms.rotate(combined(other, component), ceremony_id.hex)
    failpoint("keys.before_ceremony_commit")
    certificate = _certified(tx, ceremony, made, check)
    text = msgspec.json.encode(certificate, order="sorted").decode()
    signature = kms.sign(text.encode())
    done = await store.COMPLETE.one(
        tx, ceremony_id, tx.actor, check, tx.now, made.id, text, signature
    )
    await _noted(tx, kms, ceremony_id)
    await _go_on(tx, made)
    facts: dict[str, Fact] = {"check": check, "master_key": made.id, "version": made.version}
    await _say(tx, done, "key_ceremony.complete", facts)
    return done, check


async def abandon(tx: Tx, ceremony_id: UUID) -> Ceremony:
    """End an open ceremony without a key; the component that waits in it is forgotten.

    Raises:
        CeremonyNotFound, CeremonyOver
    """
    await _locked(tx, ceremony_id)
    ended = await store.ABANDON.one(tx, ceremony_id, tx.now)
    await _say(tx, ended, "key_ceremony.abandoned", {})
    return ended


async def ceremonies(on: Db | Tx, limit: int = 20) -> list[Ceremony]:
    """Return the newest ceremonies."""
    return await store.LIST.all(on, limit)


def is_certified(kms: Kms, ceremony: Ceremony) -> bool:
    """Tell whether the keeper's key signed the ceremony's certificate as it stands."""
    if ceremony.certificate is None or ceremony.signature is None:
        return False
    return kms.verify(ceremony.certificate.encode(), ceremony.signature)


async def noted_keys(tx: Tx, kms: Kms) -> list[NotedKey]:
    """Return what is known of the master keys, with those that are seen for the first time.

    Raises:
        KmsUnavailable
    """
    await _noted(tx, kms, None)
    return await store.NOTED.all(tx)


async def _noted(tx: Tx, kms: Kms, ceremony_id: UUID | None) -> None:
    """Note the keys the keeper has; the newest is the ceremony's, where one made it."""
    for at, each in enumerate(kms.master_keys()):
        told = (each.id, kms.provider, each.version, each.algorithm, tx.now, tx.now + CRYPTOPERIOD)
        await store.NOTE.run(tx, *told, ceremony_id if at == 0 else None)


async def _go_on(tx: Tx, made: MasterKey) -> None:
    """Have what older keys wrapped be wrapped anew."""
    await enqueue(tx, RewrapSealingKeys(once=True), key=f"after {made.id}")


async def _locked(tx: Tx, ceremony_id: UUID) -> Ceremony:
    found = await store.LOCK.first(tx, ceremony_id)
    if found is None:
        raise CeremonyNotFound
    if found.state != "open":
        raise CeremonyOver(state=found.state)
    return found


def _certified(tx: Tx, ceremony: Ceremony, made: MasterKey, check: str) -> Certificate:
    return Certificate(
        ceremony=show(PREFIX, ceremony.id),
        approval=show(APPROVAL, ceremony.approval_id),
        master_key=made.id,
        version=made.version,
        algorithm=made.algorithm,
        custodians=(ceremony.first_custodian or "", tx.actor),
        checks=(ceremony.first_check or "", check),
        at=tx.now,
    )


async def _say(tx: Tx, ceremony: Ceremony, what: str, facts: Mapping[str, Fact]) -> None:
    await audit.record(tx, what, show(PREFIX, ceremony.id), facts)


def _place(ceremony_id: UUID) -> bytes:
    return bind("key_ceremony", "component_sealed", ceremony_id)


async def _show_rotation(_db: Db, _approval: Approval, terms: RotationTerms) -> Sequence[Change]:
    return [
        Change("kept by", "密钥载体", None, terms.provider),
        Change(
            "master key version",
            "主密钥版本",
            f"{terms.from_version} ({terms.from_key})",
            str(terms.from_version + 1),
        ),
    ]


async def _show_destruction(
    _db: Db, _approval: Approval, terms: DestructionTerms
) -> Sequence[Change]:
    return [
        Change("merchant", "商户", None, terms.owner or "—"),
        Change("purpose", "用途", None, f"{terms.purpose} {terms.month}"),
        Change("key", "密钥", terms.key, "destroyed", None, "销毁"),
        Change(
            "what it sealed", "其加密的数据", "readable", "lost for ever", "可读", "永久无法恢复"
        ),
    ]
