"""Come in: sign up with a code by mail, log in, set a new password, choose a language."""

from __future__ import annotations

from collections.abc import Mapping

from tongbao.infra.web.problem import status_of
from tongbao.kernel.errors import Refusal
from tongbao.kernel.ids import show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.message_codes import Purpose
from tongbao.parties.authentication.passwords import LENGTH_MIN
from tongbao.parties.authentication.step_up import CODE_PREFIX
from tongbao.parties.developers import entering
from tongbao.parties.developers.entering import Proof
from tongbao.parties.developers.model import Language, Outfit
from tongbao.parties.developers.sessions import OpenedSession, log_out
from tongbao.parties.identity.model import scopes_under
from tongbao.rails.channels.accounts import list_accounts
from tongbao.surfaces.demo.stage import DEMO_FEES
from tongbao.surfaces.developer_portal.visit import PREFIX, SESSION, VISITOR, Visit, inside
from tongbao.surfaces.page_kit.replies import (
    Reply,
    cookie,
    cookie_name,
    language_cookie,
    redirect,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES


async def show_login(visit: Visit) -> Reply:
    """Return the form, or the first page when somebody is logged in already."""
    if visit.session is not None:
        return redirect(PREFIX)
    return _form(visit, "login.html", {"wanted": inside(visit.request.query.get("next", ""))})


async def send_login(visit: Visit) -> Reply:
    """Open a session and go on to where the visitor wanted to be."""
    form = visit.request.form
    mail, wanted = form.get("mail", ""), inside(form.get("next", ""))
    try:
        opened = await entering.log_in(visit.desk.entrance, mail, form.get("password", ""))
    except Refusal as refused:
        return _form(visit, "login.html", {"wanted": wanted}, refused)
    return await _let_in(visit, redirect(wanted), opened)


async def show_sign_up(visit: Visit) -> Reply:
    """Return the form that asks for an address."""
    return _form(visit, "sign_up.html", {"code_id": ""})


async def send_sign_up(visit: Visit) -> Reply:
    """Send a code to the address, and ask for it; the page is the same for every address."""
    return await _ask_code(visit, "sign_up.html", "register")


async def finish_sign_up(visit: Visit) -> Reply:
    """Open the test shop and show its first key, once."""
    form, desk = visit.request.form, visit.desk
    try:
        made = await entering.sign_up(
            desk.entrance,
            await _outfit(visit),
            _proof(form),
            password=form.get("password", ""),
            name=form.get("name", ""),
        )
    except Refusal as refused:
        return _form(visit, "sign_up.html", {"code_id": form.get("code_id", "")}, refused)
    facts = {"key": made.key.key, "secret": made.key.secret.reveal(), "is_first": True}
    there = Visit(
        desk,
        visit.request,
        {},
        visit.nonce,
        form_token=made.session.session.csrf_token,
        source=visit.source,
        session=made.session.session,
    )
    return await _let_in(visit, there.page("key_made.html", facts), made.session)


async def show_new_password(visit: Visit) -> Reply:
    """Return the form that asks for an address."""
    return _form(visit, "new_password.html", {"code_id": ""})


async def send_new_password(visit: Visit) -> Reply:
    """Send a code to the address, and ask for it; the page is the same for every address."""
    return await _ask_code(visit, "new_password.html", "recover")


async def finish_new_password(visit: Visit) -> Reply:
    """Set the password and open a session; every other one ends."""
    form = visit.request.form
    try:
        opened = await entering.set_new_password(
            visit.desk.entrance, _proof(form), form.get("password", "")
        )
    except Refusal as refused:
        return _form(visit, "new_password.html", {"code_id": form.get("code_id", "")}, refused)
    return await _let_in(visit, redirect(PREFIX), opened)


async def send_logout(visit: Visit) -> Reply:
    """End the session and have the browser forget what it kept of us."""
    await _end_session(visit)
    is_https = visit.desk.is_https
    return redirect(f"{PREFIX}/login").also(cookie(SESSION, "", is_https=is_https, max_age_s=0))


async def send_close(visit: Visit) -> Reply:
    """Close the account for whoever still knows its password, and forget who it was.

    Raises:
        DeveloperLoginRefused
    """
    password = visit.request.form.get("password", "")
    await entering.close_account(visit.desk.entrance, visit.developer, password)
    is_https = visit.desk.is_https
    return redirect(f"{PREFIX}/sign_up").also(cookie(SESSION, "", is_https=is_https, max_age_s=0))


async def send_language(visit: Visit) -> Reply:
    """Keep the chosen language for a year and show the same page in it."""
    form = visit.request.form
    chosen = form.get("language", "")
    reply = redirect(inside(form.get("next", "")))
    if chosen not in LANGUAGES:
        return reply
    return reply.also(language_cookie(chosen, is_https=visit.desk.is_https))


async def _ask_code(visit: Visit, template: str, purpose: Purpose) -> Reply:
    language: Language = "zh" if visit.request.language == "zh" else "en"
    try:
        sent = await entering.ask_code(
            visit.desk.entrance,
            visit.request.form.get("mail", ""),
            purpose=purpose,
            language=language,
            source=visit.source,
        )
    except Refusal as refused:
        return _form(visit, template, {"code_id": ""}, refused)
    return _form(visit, template, {"code_id": show(CODE_PREFIX, sent.code_id)})


async def _outfit(visit: Visit) -> Outfit:
    """Return what a new shop begins with: the newest sandbox account of ours at each channel."""
    licence = visit.desk.licence
    ours = [each for each in await list_accounts(visit.desk.db) if each.mode is Mode.SANDBOX]
    newest = {each.channel: each.id for each in sorted(ours, key=lambda each: each.id)}
    prices = [line for line in DEMO_FEES if licence.may_hold_funds or line.channel != "wallet"]
    return Outfit(licence, prices, newest, sorted(scopes_under(licence)))


async def _let_in(visit: Visit, reply: Reply, opened: OpenedSession) -> Reply:
    """Give the browser its cookie, in place of one it had."""
    await _end_session(visit)
    is_https = visit.desk.is_https
    return reply.also(
        cookie(SESSION, opened.token.reveal(), is_https=is_https),
        cookie(VISITOR, "", is_https=is_https, max_age_s=0),
    )


async def _end_session(visit: Visit) -> None:
    token = visit.request.cookies.get(cookie_name(SESSION, is_https=visit.desk.is_https))
    if token:
        await log_out(visit.desk.db, visit.desk.keyring, token)


def _form(
    visit: Visit, template: str, facts: Mapping[str, object], refused: Refusal | None = None
) -> Reply:
    """Return a form for somebody who is not in yet, filled in as it was sent but for secrets."""
    form = visit.request.form
    given = {
        "mail": form.get("mail", ""),
        "shop": form.get("name", ""),
        "length_min": LENGTH_MIN,
    }
    status = 200 if refused is None else status_of(type(refused))
    reply = visit.page(template, {"refused": refused, **given, **facts}, status=status)
    if refused is not None:
        reply = reply.told_to_wait(refused)
    name = cookie_name(VISITOR, is_https=visit.desk.is_https)
    if visit.session is not None or visit.request.cookies.get(name) == visit.form_token:
        return reply
    return reply.also(cookie(VISITOR, visit.form_token, is_https=visit.desk.is_https))


def _proof(form: Mapping[str, str]) -> Proof:
    return Proof(form.get("mail", ""), form.get("code_id", ""), form.get("code", ""))
