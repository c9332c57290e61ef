"""Step-up: what an act needs to be confirmed with, the proofs that come in, and the one use of it.

    act ─► rules, risk, new device ─► level
    level 0: go on                     else: waiting ──proofs──► confirmed ──the act──► used

A route asks `require_step_up` first. Where more is needed it refuses, naming a confirmation; the
app proves factors there and repeats the very same request, which then finds it confirmed. The act
takes the confirmation in its own commit, so it is good for one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx, Write
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.ids import new_id, parse, show
from tongbao.parties.authentication import _store as store
from tongbao.parties.authentication.authenticators import code_proves, response_proves
from tongbao.parties.authentication.certificates import certificate_proves
from tongbao.parties.authentication.message_codes import try_code, use_code
from tongbao.parties.authentication.model import (
    CONFIRMATION_LIFE,
    CONFIRMATION_TRIES_MAX,
    Act,
    Confirmation,
    ConfirmationNotFound,
    ConfirmationUsed,
    Level,
    Method,
    PasskeyRefused,
    ProofRefused,
    Risk,
    StepUpRequired,
    StepUpRule,
    level_by_rules,
)
from tongbao.parties.authentication.passkeys import (
    Site,
    new_challenge,
    passkey_proves,
    passkeys_of,
    request_options,
    use_challenge,
)
from tongbao.parties.authentication.passwords import PasswordPolicy, password_matches

PREFIX: Final = "cnf"
CHALLENGE_PREFIX: Final = "chl"
CODE_PREFIX: Final = "cod"
CONFIRM: Final = "confirm"
NEW_DEVICE_FOR: Final = timedelta(hours=24)
"""A phone bound so lately confirms with two factors whatever is to be confirmed at all."""
_RESPONSE_MAX: Final = 16 * 1024
_Text = Annotated[str, Meta(min_length=1, max_length=128)]


class ByPassword(Struct, frozen=True, tag="password", forbid_unknown_fields=True):
    """The password."""

    password: Annotated[str, Meta(min_length=1, max_length=512)]


class ByMessageCode(Struct, frozen=True, tag="message_code", forbid_unknown_fields=True):
    """A code that was sent to the person's phone or mail address."""

    code_id: _Text
    code: _Text


class ByTotp(Struct, frozen=True, tag="totp", forbid_unknown_fields=True):
    """The code an authenticator app shows now."""

    code: _Text


class ByHotp(Struct, frozen=True, tag="hotp", forbid_unknown_fields=True):
    """The next code of a counter."""

    code: _Text


class ByOcra(Struct, frozen=True, tag="ocra", forbid_unknown_fields=True):
    """A token's response to a challenge about the act."""

    challenge_id: _Text
    response: _Text


class ByPasskey(Struct, frozen=True, tag="passkey", forbid_unknown_fields=True):
    """What the browser or the phone returned for a passkey, in JSON form."""

    challenge_id: _Text
    response: dict[str, Any]


class ByCertificate(Struct, frozen=True, tag="certificate", forbid_unknown_fields=True):
    """A certificate's signature over the act, in base64."""

    challenge_id: _Text
    signature: Annotated[bytes, Meta(max_length=2048)]


Claim = ByPassword | ByMessageCode | ByTotp | ByHotp | ByOcra | ByPasskey | ByCertificate


class PageQuestion(Struct, frozen=True):
    """What a page asks a passkey: the challenge's id, and the browser's options as JSON."""

    challenge_id: str
    options: str


class Holder(Struct, frozen=True):
    """Who acts: a session of theirs on a phone of theirs, and the keyring that is theirs alone."""

    owner_id: UUID
    session_hash: bytes
    device_id: UUID
    device_bound_at: datetime
    blinds: frozenset[bytes]  # of the addresses that codes for them go to
    actor: str
    own: Keyring


class Checks(Struct, frozen=True):
    """What proofs are checked with."""

    db: Db
    keyring: Keyring
    site: Site
    policy: PasswordPolicy
    risk: Risk


class NoRisk(Struct, frozen=True):
    """Where nobody fills the port: the rules of amounts alone decide."""

    async def level_for(self, owner_id: UUID, device_id: UUID, act: Act) -> Level:
        """Ask for nothing more."""
        del owner_id, device_id, act
        return Level.SESSION


class Confirmed(Struct, frozen=True):
    """An act that may be done once, and how strongly it was proved; ``id`` None: by nothing."""

    id: UUID | None
    level: Level = Level.SESSION

    def writes(self) -> tuple[Write, ...]:
        """Return the write that takes it in the act's own commit, or none."""
        if self.id is None:
            return ()
        return (Write(store.USE_CONFIRMATION, (self.id, real_now()), ConfirmationUsed.code),)

    async def take(self, tx: Tx) -> None:
        """Take it in the caller's transaction.

        Raises:
            ConfirmationUsed
        """
        for write in self.writes():
            if not await write.run(tx):
                raise ConfirmationUsed


async def require_step_up(checks: Checks, holder: Holder, act: Act) -> Confirmed:
    """Return the right to do this act once, or refuse with what has to be confirmed first.

    Raises:
        StepUpRequired
    """
    level = await level_for(checks, holder, act)
    if level is Level.SESSION:
        return Confirmed(None)
    now = real_now()
    row = await store.OPEN_CONFIRMATION.one(
        checks.db,
        new_id(),
        holder.owner_id,
        holder.session_hash,
        act.digest,
        msgspec.to_builtins(act),
        int(level),
        now,
        now + CONFIRMATION_LIFE,
    )
    if row.is_confirmed:
        return Confirmed(row.id, Level(row.level))
    raise StepUpRequired(confirmation=show(PREFIX, row.id), level=row.level)


async def level_for(checks: Checks, holder: Holder, act: Act) -> Level:
    """Return the strongest level that rules, risk and a new phone ask for."""
    today = business_date(checks.db.clock.now())
    rules = await store.RULES.all(checks.db, act.kind, act.currency)
    level = level_by_rules(act, rules, today)
    level = max(level, await checks.risk.level_for(holder.owner_id, holder.device_id, act))
    if level is not Level.SESSION and real_now() - holder.device_bound_at < NEW_DEVICE_FOR:
        level = max(level, Level.TWO)
    return level


async def confirmation_of(checks: Checks, holder: Holder, confirmation_id: str) -> Confirmation:
    """Return what this session has to confirm.

    Raises:
        ConfirmationNotFound, UnknownId
    """
    wanted = parse(PREFIX, confirmation_id)
    found = await store.FIND_CONFIRMATION.first(checks.db, wanted, holder.session_hash, real_now())
    if found is None:
        raise ConfirmationNotFound
    return found


def act_of(confirmation: Confirmation) -> Act:
    """Return the act as it was asked for."""
    return msgspec.convert(confirmation.act, Act)


async def confirm(
    checks: Checks, holder: Holder, confirmation: Confirmation, claim: Claim
) -> Confirmation:
    """Add one proof to what an act needs.

    Raises:
        ConfirmationNotFound, ProofRefused, CodeWrong, PasskeyRefused, CertificateRefused, UnknownId
    """
    now = real_now()
    if not await store.COUNT_CONFIRMATION_TRY.run(
        checks.db, confirmation.id, now, CONFIRMATION_TRIES_MAX
    ):
        raise ConfirmationNotFound
    method = await prove(checks, holder, claim, act_of(confirmation))
    changed = await store.ADD_PROOF.first(checks.db, confirmation.id, method.value, now)
    if changed is None:
        raise ConfirmationNotFound
    if changed.is_confirmed and not confirmation.is_confirmed:
        async with checks.db.begin(holder.actor) as tx:
            facts = {"kind": changed.act["kind"], "methods": " ".join(changed.proved)}
            await audit.record(tx, "act.confirmed", show(PREFIX, changed.id), facts)
    return changed


async def prove(checks: Checks, holder: Holder, claim: Claim, act: Act) -> Method:
    """Return the way in which this claim proves the holder, about this act; it is used up.

    Raises:
        ProofRefused, CodeWrong, PasskeyRefused, CertificateRefused, UnknownId
    """
    db, owner_id = checks.db, holder.owner_id
    match claim:
        case ByPassword(password):
            proved, method = await password_matches(db, owner_id, password), Method.PASSWORD
        case ByMessageCode():
            return await _by_code(checks, holder, claim, act)
        case ByTotp(code):
            proved, method = await code_proves(db, holder.own, owner_id, "totp", code), Method.TOTP
        case ByHotp(code):
            proved, method = await code_proves(db, holder.own, owner_id, "hotp", code), Method.HOTP
        case ByOcra() | ByPasskey() | ByCertificate():
            return await _by_challenge(checks, holder, claim, act)
    if not proved:
        raise ProofRefused
    return method


async def _by_code(checks: Checks, holder: Holder, claim: ByMessageCode, act: Act) -> Method:
    code_id = parse(CODE_PREFIX, claim.code_id)
    row = await try_code(checks.db, checks.keyring, code_id, claim.code, purpose="confirm", act=act)
    if row.blind not in holder.blinds:
        raise ProofRefused
    async with checks.db.begin(holder.actor) as tx:
        await use_code(tx, row)
    return Method.MESSAGE_CODE


async def _by_challenge(
    checks: Checks, holder: Holder, claim: ByOcra | ByPasskey | ByCertificate, act: Act
) -> Method:
    asked = parse(CHALLENGE_PREFIX, claim.challenge_id)
    challenge = await use_challenge(checks.db, asked, CONFIRM, holder.owner_id, act)
    match claim:
        case ByOcra(response=response):
            proved = await response_proves(
                checks.db, holder.own, holder.owner_id, challenge, act=act, response=response
            )
            method = Method.OCRA
        case ByPasskey(response=credential):
            used = await passkey_proves(
                checks.db, checks.site, challenge, credential, actor=holder.actor
            )
            proved, method = used.owner_id == holder.owner_id, Method.PASSKEY
        case ByCertificate(signature=signature):
            proved = await certificate_proves(
                checks.db, holder.owner_id, challenge, act=act, signature=signature
            )
            method = Method.CERTIFICATE
    if not proved:
        raise ProofRefused
    return method


async def ask_passkey(checks: Checks, owner_id: UUID, act: Act, actor: str) -> PageQuestion | None:
    """Return what a page asks a passkey of the owner's to sign about an act; None without one."""
    known = [each for each in await passkeys_of(checks.db, owner_id) if each.state == "active"]
    if not known:
        return None
    async with checks.db.begin(actor) as tx:
        challenge = await new_challenge(tx, CONFIRM, owner_id, act)
    options = request_options(checks.site, challenge, known)
    return PageQuestion(show(CHALLENGE_PREFIX, challenge.id), msgspec.json.encode(options).decode())


def read_passkey(challenge_id: str, response: str) -> ByPasskey:
    """Return what a page's script has put into its form.

    Raises:
        PasskeyRefused
    """
    try:
        said = msgspec.json.decode(response[:_RESPONSE_MAX], type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        raise PasskeyRefused(reason="malformed") from None
    return ByPasskey(challenge_id[:64], said)


RULES: Final = store.ALL_RULES
"""Every dated row, past and future ones too."""
ADD_RULE: Final = store.ADD_RULE
"""Adds one, which two people agreed to."""


async def all_rules(on: Db | Tx) -> list[StepUpRule]:
    """Return every rule, past and future ones too."""
    return await store.ALL_RULES.all(on)


async def prune_challenges(db: Db, over: datetime) -> None:
    """Forget challenges and confirmations that ended before."""
    await store.PRUNE_CHALLENGES.run(db, over)
    await store.PRUNE_CONFIRMATIONS.run(db, over)


async def forget_confirmations(tx: Tx, owner_id: UUID) -> None:
    """Forget what somebody confirmed, and to whom."""
    await store.FORGET_CONFIRMATIONS.run(tx, owner_id)
    await store.FORGET_PAYEES.run(tx, owner_id)


async def knows_payee(on: Db | Tx, owner_id: UUID, payee: str) -> bool:
    """Tell whether something to this payee was confirmed and done before."""
    return await store.KNOWS_PAYEE.one(on, owner_id, payee)


async def failed_proofs(on: Db | Tx, owner_id: UUID, since: datetime) -> int:
    """Return how many proofs of theirs were wrong since a moment of real time, of a day or so."""
    return await store.FAILED_PROOFS.one(on, owner_id, since)
