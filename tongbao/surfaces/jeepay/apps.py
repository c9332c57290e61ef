"""Apps: who may call the façade, with a secret of its own that nothing else accepts.

It signs by jeepay's rule: MD5 over sorted fields with the secret at their end. Broken cryptography
that merchants' programs already have; nothing but this façade uses it (ADR 13). The rule is
published (docs.jeequan.com/docs/jeepay/api_rule): of all fields but ``sign`` those that are not
empty, sorted by name, joined as ``name=value&``, then ``key=`` and the secret; MD5 of the UTF-8
bytes, upper-case hex. Its programs sort ``name=value&`` without regard to case
(jeequan/jeepay-skills: tests/signature_vectors.json), which for the published names is the same.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind, constant_time_equal
from tongbao.infra.db import Db, Tx
from tongbao.infra.settings import Secret
from tongbao.kernel.ids import base32, new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.surfaces.jeepay import _store as store
from tongbao.surfaces.jeepay.model import (
    NAME,
    AppIdTaken,
    AppNameMalformed,
    AppUnknown,
    JeepayApp,
    NewSecret,
    NotifyBy,
)

_PURPOSE: Final = "jeepay.secret"
SIGN: Final = "sign"

Fields = Mapping[str, str | int]


async def enable(
    tx: Tx,
    keyring: Keyring,
    merchant_id: UUID,
    mode: Mode,
    *,
    mch_no: str | None = None,
    app_id: str | None = None,
    notify_by: NotifyBy = "form",
) -> NewSecret:
    """Let a merchant's jeepay programs in, under their old names if they are given.

    The secret is new in any case, returned this once: jeepay writes its own to its log.

    Raises:
        MerchantNotFound, AppNameMalformed, AppIdTaken
    """
    for name in (mch_no, app_id):
        if name is not None and NAME.fullmatch(name) is None:
            raise AppNameMalformed
    merchant = await merchant_with_id(tx, merchant_id)
    made, secret = new_id(), _new_secret()
    app = await store.INSERT_APP.first(
        tx,
        made,
        merchant.id,
        mode,
        mch_no or show("mch", merchant.id),
        app_id or base32(made),
        notify_by,
        _sealed(keyring, made, secret),
        secret.reveal()[-4:],
        tx.now,
    )
    if app is None:
        raise AppIdTaken
    await _record(tx, "enabled", app)
    return NewSecret(app, secret)


async def roll(tx: Tx, keyring: Keyring, app_id: str) -> NewSecret:
    """Give an app a new secret, at once: the contract has room for one. A disabled app is let in.

    Raises:
        AppUnknown
    """
    found = await store.LOCK_APP.first(tx, app_id)
    if found is None:
        raise AppUnknown
    secret = _new_secret()
    sealed = _sealed(keyring, found.id, secret)
    app = await store.ROLL_APP.one(tx, found.id, sealed, secret.reveal()[-4:])
    await _record(tx, "rolled", app)
    return NewSecret(app, secret)


async def disable(tx: Tx, app_id: str) -> JeepayApp:
    """Let an app in no more, and send it nothing; doing so again changes nothing.

    Raises:
        AppUnknown
    """
    app = await store.DISABLE_APP.first(tx, app_id, tx.now)
    if app is None:
        raise AppUnknown
    await _record(tx, "disabled", app)
    return app


async def apps_of(on: Db | Tx, merchant_id: UUID) -> list[JeepayApp]:
    """Return a merchant's apps in both modes, newest first."""
    return await store.APPS_OF.all(on, merchant_id)


async def app_named(on: Db | Tx, mch_no: str, app_id: str) -> JeepayApp | None:
    """Return the app a request names, if it is let in."""
    app = await store.FIND_APP.first(on, app_id)
    if app is None or app.mch_no != mch_no or app.disabled_at is not None:
        return None
    return app


def secret_of(keyring: Keyring, app: JeepayApp) -> Secret:
    """Return what the app's requests, answers and notices are signed with.

    Raises:
        SealUnreadable
    """
    return Secret(keyring.open(_PURPOSE, app.secret_sealed, _place(app.id)).decode())


def signature(fields: Fields, secret: Secret) -> str:
    """Return the signature of these fields, whatever is empty among them left out."""
    named = sorted(
        (f"{name}={value}&" for name, value in fields.items() if value != "" and name != SIGN),
        key=str.lower,
    )
    signed = f"{''.join(named)}key={secret.reveal()}".encode()
    return hashlib.md5(signed).hexdigest().upper()  # noqa: S324 - the contract's, see above


def signed(fields: Fields, secret: Secret) -> dict[str, str | int]:
    """Return the fields with their signature."""
    return {**fields, SIGN: signature(fields, secret)}


def is_signed(fields: Fields, secret: Secret) -> bool:
    """Tell whether whoever knows the secret has signed these fields, in the same time for each."""
    said = str(fields.get(SIGN, "")).upper()
    return constant_time_equal(said.encode(), signature(fields, secret).encode())


def _new_secret() -> Secret:
    return Secret(secrets.token_urlsafe(48))


def _sealed(keyring: Keyring, app: UUID, secret: Secret) -> bytes:
    return keyring.seal(_PURPOSE, secret.reveal().encode(), _place(app))


def _place(app: UUID) -> bytes:
    return bind("jeepay_app", "secret_sealed", app)


async def _record(tx: Tx, act: str, app: JeepayApp) -> None:
    facts = {"app_id": app.app_id, "mch_no": app.mch_no, "mode": app.mode.value}
    await audit.record(tx, f"jeepay_app.{act}", show("mch", app.merchant_id), facts)
