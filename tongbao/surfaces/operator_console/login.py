"""Who is there: log in with password and code, log out, choose a language."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import quote

from tongbao.parties.identity.model import LoginRefused
from tongbao.parties.identity.queries import list_operators
from tongbao.parties.identity.sessions import log_in, log_out
from tongbao.surfaces.operator_console.visit import PREFIX, SESSION, VISITOR, Visit
from tongbao.surfaces.page_kit.replies import (
    Reply,
    cookie,
    cookie_name,
    language_cookie,
    leave_for,
    redirect,
)
from tongbao.surfaces.page_kit.requests import LANGUAGES

START: Final = f"{PREFIX}/payments"


async def show_login(visit: Visit) -> Reply:
    """Return the form, or the first page when somebody is logged in already."""
    if visit.session is not None:
        return redirect(START)
    return await _form(visit)


async def send_login(visit: Visit) -> Reply:
    """Open a session and go on to where the visitor wanted to be."""
    form = visit.request.form
    try:
        opened = await log_in(
            visit.desk.db,
            visit.desk.keyring,
            login=form.get("login", "").strip().lower(),
            password=form.get("password", ""),
            code="".join(form.get("code", "").split()),
        )
    except LoginRefused as refused:
        return await _form(visit, status=401, refused=refused)
    await _end_session(visit)
    is_https = visit.desk.is_https
    return redirect(_inside(form.get("next", ""))).also(
        cookie(SESSION, opened.token.reveal(), is_https=is_https),
        cookie(VISITOR, "", is_https=is_https, max_age_s=0),
    )


async def send_logout(visit: Visit) -> Reply:
    """End the session and have the browser forget what it kept of us."""
    await _end_session(visit)
    is_https = visit.desk.is_https
    return redirect(f"{PREFIX}/login").also(cookie(SESSION, "", is_https=is_https, max_age_s=0))


async def send_language(visit: Visit) -> Reply:
    """Keep the chosen language for a year and show the same page in it."""
    form = visit.request.form
    chosen = form.get("language", "")
    reply = redirect(_inside(form.get("next", "")))
    if chosen not in LANGUAGES:
        return reply
    return reply.also(language_cookie(chosen, is_https=visit.desk.is_https))


def ask_login(visit: Visit) -> Reply:
    """Send a visitor without a session to the form, and back here afterwards."""
    asked = visit.request
    if asked.is_by_script:
        return leave_for(f"{PREFIX}/login", status=401)
    if asked.method != "GET":
        return redirect(f"{PREFIX}/login")
    to, wanted = f"{PREFIX}/login", visit.address
    return redirect(to if wanted in {PREFIX, START} else f"{to}?next={quote(wanted, safe='')}")


def new_visitor_token() -> str:
    """Return what ties a form to the browser it was shown in, before anybody is logged in."""
    return secrets.token_urlsafe(24)


async def _form(visit: Visit, *, status: int = 200, refused: LoginRefused | None = None) -> Reply:
    asked = visit.request
    facts = {
        "refused": refused,
        "login": asked.form.get("login", ""),
        "wanted": _inside(asked.form.get("next") or asked.query.get("next", "")),
        "nobody_yet": not await list_operators(visit.desk.db),
    }
    reply = await visit.page("login.html", facts, status=status)
    name = cookie_name(VISITOR, is_https=visit.desk.is_https)
    if asked.cookies.get(name) == visit.form_token:
        return reply
    return reply.also(cookie(VISITOR, visit.form_token, is_https=visit.desk.is_https))


async def _end_session(visit: Visit) -> None:
    token = visit.request.cookies.get(cookie_name(SESSION, is_https=visit.desk.is_https))
    if token:
        await log_out(visit.desk.db, visit.desk.keyring, token)


def _inside(wanted: str) -> str:
    """Return an address of the console and nowhere else."""
    is_ours = wanted.startswith(f"{PREFIX}/") and wanted.isascii() and wanted.isprintable()
    return wanted if is_ours and "\\" not in wanted else START
