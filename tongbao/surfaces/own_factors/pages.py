"""An operator's own page: enrol and remove passkeys, make recovery codes.

Whoever changes how they prove themselves proves it once more: password and a second factor, which
is used up by that.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tongbao.infra.settings import Secret
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.parties.authentication.passkeys import PREFIX as PASSKEY
from tongbao.parties.authentication.passkeys import creation_options
from tongbao.parties.identity.factors import (
    CHALLENGE_PREFIX,
    ENROL,
    PasskeyAnswer,
    add_own_passkey,
    ask_operator,
    end_own_passkey,
    factors_of,
    make_recovery_codes,
)
from tongbao.parties.identity.model import Permission
from tongbao.parties.identity.operators import set_password
from tongbao.parties.identity.sessions import log_in, log_out
from tongbao.surfaces.operator_console.visit import PREFIX as CONSOLE
from tongbao.surfaces.operator_console.visit import Route, Visit
from tongbao.surfaces.page_kit.replies import Reply, redirect

_RESPONSE_MAX: Final = 16_384
_NAME_MAX: Final = 64


class FactorFormWrong(Invalid):
    """The form was not filled in by the page's own script, or has no name."""

    code = "console.factor_form_wrong"
    advice = "Use the page's own form in a browser that knows passkeys, and give it a name."
    advice_zh = "请使用支持通行密钥的浏览器和页面自带的表单，并填写名称。"


async def show_own(visit: Visit) -> Reply:
    """Return the page of one's own second factors."""
    return await _page(visit)


async def add_one(visit: Visit) -> Reply:
    """Enrol a passkey.

    Raises:
        LoginRefused, FactorFormWrong, ProofRefused, PasskeyRefused, PasskeyUnavailable, UnknownId
    """
    form = visit.request.form
    name = form.get("name", "").strip()[:_NAME_MAX]
    if not name:
        raise FactorFormWrong(param="name")
    answer = read_answer(form.get("challenge_id", ""), form.get("response", ""))
    await _prove(visit)
    await add_own_passkey(visit.desk.db, visit.desk.site, visit.operator, name, answer)
    return redirect(f"{CONSOLE}/me?done=added")


async def remove_one(visit: Visit) -> Reply:
    """Take a passkey no more.

    Raises:
        LoginRefused, UnknownId, AuthenticatorNotFound
    """
    wanted = parse(PASSKEY, visit.params["passkey_id"])
    await _prove(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await end_own_passkey(tx, visit.operator, wanted)
    return redirect(f"{CONSOLE}/me?done=removed")


async def make_codes(visit: Visit) -> Reply:
    """Make recovery codes and show them this once.

    Raises:
        LoginRefused
    """
    await _prove(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        codes = await make_recovery_codes(tx, visit.desk.keyring, visit.operator)
    return await _page(visit, codes)


async def change_password(visit: Visit) -> Reply:
    """Change one's own password, which ends every session, this one too.

    Raises:
        LoginRefused, PasswordWeak, FactorFormWrong
    """
    form = visit.request.form
    chosen = form.get("new_password", "")
    if chosen != form.get("again", ""):
        raise FactorFormWrong(param="again")
    await _prove(visit)
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await set_password(tx, visit.operator.login, chosen)
    return redirect(f"{CONSOLE}/login")


def read_answer(challenge_id: str, response: str) -> PasskeyAnswer:
    """Return what the page's script has put into the form.

    Raises:
        FactorFormWrong
    """
    if not response or len(response) > _RESPONSE_MAX:
        raise FactorFormWrong(param="response")
    try:
        said: dict[str, Any] = msgspec.json.decode(response, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise FactorFormWrong(param="response") from None
    return PasskeyAnswer(challenge_id, said)


_VIEW: Final = Permission.VIEW
ROUTES: Final = (
    Route("GET", "/me", show_own, _VIEW),
    Route("POST", "/me/passkeys", add_one, _VIEW),
    Route("POST", "/me/passkeys/{passkey_id}/remove", remove_one, _VIEW),
    Route("POST", "/me/recovery-codes", make_codes, _VIEW),
    Route("POST", "/me/password", change_password, _VIEW),
)


async def _prove(visit: Visit) -> None:
    """Have the operator prove who they are anew.

    Raises:
        LoginRefused
    """
    form, desk = visit.request.form, visit.desk
    opened = await log_in(
        desk.db,
        desk.keyring,
        login=visit.operator.login,
        password=form.get("password", ""),
        code="".join(form.get("code", "").split()).lower(),
    )
    await log_out(desk.db, desk.keyring, opened.token.reveal())


async def _page(visit: Visit, codes: list[Secret] | None = None) -> Reply:
    operator, db = visit.operator, visit.desk.db
    own = await factors_of(db, operator)
    async with db.begin(operator.actor) as tx:
        challenge = await ask_operator(tx, ENROL, operator.id)
    options = creation_options(
        visit.desk.site,
        challenge,
        owner_id=operator.id,
        account=operator.login,
        known=own.passkeys,
    )
    facts = {
        "passkeys": [(show(PASSKEY, each.id), each) for each in own.passkeys],
        "recovery_left": own.recovery_left,
        "codes": [each.reveal() for each in codes or ()],
        "challenge_id": show(CHALLENGE_PREFIX, challenge.id),
        "options": msgspec.json.encode(options).decode(),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("me.html", facts)
