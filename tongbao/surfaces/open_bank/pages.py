"""The pages on which a person logs in, sees what a partner asks for, chooses accounts and confirms.

    open ──► log in ──► look and choose ──► confirm with a code about exactly that ──► back
                                 └────► reject ──► back with access_denied

The browser is known by a cookie that was set when it opened the pushed request; the partner never
sees it. A code that confirms is bound to the consent, the accounts, the amount and the payee.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.clock import real_now
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import UnknownId, show
from tongbao.parties.authentication.message_codes import send_code, take_allowance
from tongbao.parties.authentication.model import (
    Act,
    CodeWrong,
    Level,
    Method,
    PasskeyRefused,
    PasskeyUnavailable,
    ProofRefused,
    level_of,
)
from tongbao.parties.authentication.step_up import (
    CODE_PREFIX,
    ByMessageCode,
    ByPasskey,
    Holder,
    PageQuestion,
    ask_passkey,
    level_for,
    prove,
    read_passkey,
)
from tongbao.parties.consents import grants
from tongbao.parties.consents.consents import consent_with_id
from tongbao.parties.consents.holdings import Account
from tongbao.parties.consents.model import (
    URN,
    Authorisation,
    Consent,
    hashed,
    new_secret,
)
from tongbao.parties.partners.message_keys import signed
from tongbao.parties.partners.model import PREFIX, Kind, Partner
from tongbao.parties.partners.partners import active_partner, partner_with_id
from tongbao.parties.people.contacts import (
    address_of,
    contacts_of,
    keyring_of,
    opened,
)
from tongbao.parties.people.dossier import person_with_id
from tongbao.parties.people.entering import clear_tries, person_by_password
from tongbao.parties.people.model import Person
from tongbao.parties.people.sessions import holder_in_browser
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.open_bank.endpoints import AUTHORIZE
from tongbao.surfaces.page_kit.replies import (
    Reply,
    cookie,
    cookie_name,
    page_policy,
    page_reply,
    redirect,
)
from tongbao.surfaces.page_kit.requests import PageRequest

_COOKIE: Final = "tongbao_consent"
_PASSWORD_MAX: Final = 512
_ANSWER_LIFE_S: Final = 600
_ACT: Final = "open_bank.consent"
_BY_CODE: Final = (Method.PASSWORD, Method.MESSAGE_CODE)
_BY_PASSKEY: Final = (Method.PASSWORD, Method.PASSKEY)
_NO_PASSKEY: Final = (ProofRefused, PasskeyRefused, PasskeyUnavailable)


class RequestNotOpen(Conflict):
    """The request is over, was opened elsewhere, or was never made."""

    code = "open_bank.request_not_open"
    advice = "Go back to the app that sent you here and begin anew."
    advice_zh = "授权请求已失效，请返回发起授权的应用重新开始。"


class StrongerProofNeeded(Rejected):
    """The act needs a stronger proof than these pages can take."""

    code = "open_bank.stronger_proof_needed"
    advice = "Use a smaller amount, or pay in the wallet's own app."
    advice_zh = "该操作需要更强的身份验证，请减少金额或在钱包应用内付款。"


class NothingChosen(Rejected):
    """No account of one's own was chosen, or more than the one that pays."""

    code = "open_bank.nothing_chosen"
    advice = "Choose an account; to pay, exactly one."
    advice_zh = "请选择账户；付款时只能选择一个。"


class Visit(Struct, frozen=True):
    """One request of a browser."""

    desk: Desk
    request: PageRequest
    nonce: str
    source: str


class Sitting(Struct, frozen=True):
    """A browser with an open request: what is asked, by whom."""

    request: Authorisation
    consent: Consent
    partner: Partner


async def open_page(visit: Visit) -> Reply:
    """Open a pushed request in this browser and show the login, or go on where it was.

    Raises:
        RequestNotOpen
    """
    desk, query = visit.desk, visit.request.query
    if before := await _sitting(visit):
        return await _step(visit, before)
    partner = await active_partner(desk.db, query.get("client_id", ""))
    if partner is None:
        raise RequestNotOpen
    browser = new_secret()
    request = await grants.open_request(desk.db, partner.id, query.get("request_uri", ""), browser)
    if request is None:
        raise RequestNotOpen
    consent = await consent_with_id(desk.db, request.consent_id)
    reply = await _step(visit, Sitting(request, consent, partner))
    return reply.also(cookie(_COOKIE, browser, is_https=desk.is_https))


async def log_in(visit: Visit) -> Reply:
    """Take address and password; whatever is wrong with them, the answer is the same.

    Raises:
        RequestNotOpen, TooManyRequests
    """
    sitting = await _open_sitting(visit)
    if sitting.request.person_id is not None:
        return await _step(visit, sitting)
    desk = visit.desk
    if not desk.tries.lets_through(sitting.request.id.hex) or not desk.tries_from.lets_through(
        visit.source
    ):
        raise TooManyRequests
    form = visit.request.form
    address, password = form.get("contact", "")[:254], form.get("password", "")[:_PASSWORD_MAX]
    mode = sitting.consent.mode
    person = await person_by_password(desk.checks, mode, address, password)
    if person is None:
        return _page(visit, "log_in.html", sitting, wrong=True, status=422)
    async with visit.desk.db.begin(person.actor) as tx:
        if not await grants.note_login(tx, sitting.request, person):
            raise RequestNotOpen
        await clear_tries(tx, person)
        facts = {"partner": sitting.partner.client_id}
        await audit.record(tx, "person.logged_in_to_consent", person.actor, facts)
    return redirect(AUTHORIZE)


async def choose(visit: Visit) -> Reply:
    """Take the chosen accounts and send a code about exactly this consent for them.

    Raises:
        RequestNotOpen, NothingChosen, CodesTooMany, StrongerProofNeeded
    """
    sitting = await _open_sitting(visit)
    person, desk = await _person(visit, sitting), visit.desk
    accounts = await _chosen(visit, sitting.consent, person)
    act = act_of(sitting.consent, sitting.partner, [each.id for each in accounts])
    await _check_level(visit, sitting, person, act, _BY_CODE)
    own = await keyring_of(desk.db, desk.keyring, person.id)
    rows = await contacts_of(desk.db, person.id)
    address = address_of(desk.keyring, opened(own, rows[0]), person.language)
    await take_allowance(desk.db, desk.keyring, address.blind, visit.source)
    async with desk.db.begin(person.actor) as tx:
        sent = await send_code(
            *(tx, desk.keyring, address, "confirm"), mode=person.mode, owner_id=person.id, act=act
        )
        await grants.note_choice(tx, sitting.request, [each.id for each in accounts], sent.code_id)
    return redirect(AUTHORIZE)


async def confirm(visit: Visit) -> Reply:
    """Take the code, write the consent down, and send the browser back with a code for the partner.

    Raises:
        RequestNotOpen, ConsentEnded, StrongerProofNeeded
    """
    sitting = await _open_sitting(visit)
    if sitting.request.message_code is None:
        return redirect(AUTHORIZE)
    code = visit.request.form.get("code", "").strip()[:16]
    claim = ByMessageCode(show(CODE_PREFIX, sitting.request.message_code), code)
    try:
        return await _granted(visit, sitting, claim, _BY_CODE)
    except CodeWrong:
        return await _confirm_page(visit, sitting, wrong="code", status=422)


async def confirm_by_passkey(visit: Visit) -> Reply:
    """Take a passkey's signature over exactly this instead of the code, and go on like there.

    Raises:
        RequestNotOpen, ConsentEnded, StrongerProofNeeded
    """
    sitting, form = await _open_sitting(visit), visit.request.form
    if sitting.request.message_code is None:
        return redirect(AUTHORIZE)
    try:
        claim = read_passkey(form.get("challenge_id", ""), form.get("response", ""))
        return await _granted(visit, sitting, claim, _BY_PASSKEY)
    except (UnknownId, *_NO_PASSKEY):
        return await _confirm_page(visit, sitting, wrong="passkey", status=422)


async def reject(visit: Visit) -> Reply:
    """Write down that the person does not want it, and send the browser back.

    Raises:
        RequestNotOpen, ConsentEnded
    """
    sitting = await _open_sitting(visit)
    known = sitting.request.person_id
    person = await person_with_id(visit.desk.db, known) if known else None
    async with visit.desk.db.begin(person.actor if person else "somebody") as tx:
        await grants.decline(tx, sitting.request, person)
    return await _back(visit, sitting.request, {"error": "access_denied"})


def act_of(consent: Consent, partner: Partner, accounts: list[UUID]) -> Act:
    """Return what is confirmed: this consent for these accounts, this much to this payee."""
    chosen = hashlib.sha256(b"".join(sorted(each.bytes for each in accounts))).hexdigest()[:32]
    subject = f"{partner.client_id} {consent.shown_id} {chosen}"
    money = consent.money
    if money is None:
        return Act(_ACT, subject)
    return Act(_ACT, subject, money.amount, money.currency, consent.payee_name or "")


async def _granted(
    visit: Visit, sitting: Sitting, claim: ByMessageCode | ByPasskey, methods: tuple[Method, ...]
) -> Reply:
    """Write the consent down for whoever proves themselves about exactly it, and send them back.

    Raises:
        RequestNotOpen, ConsentEnded, StrongerProofNeeded, CodeWrong, UnknownId, ProofRefused,
        PasskeyRefused, PasskeyUnavailable
    """
    request, person = sitting.request, await _person(visit, sitting)
    act = act_of(sitting.consent, sitting.partner, request.chosen)
    holder = await _check_level(visit, sitting, person, act, methods)
    await prove(visit.desk.checks, holder, claim, act)
    async with visit.desk.db.begin(person.actor) as tx:
        named = [each.value for each in methods]
        granted = await grants.grant(tx, request, person, methods=named)
    return await _back(visit, request, {"code": granted})


async def _check_level(
    visit: Visit, sitting: Sitting, person: Person, act: Act, methods: tuple[Method, ...]
) -> Holder:
    """Return the person as whoever confirms needs them; a browser is always a new device.

    Raises:
        StrongerProofNeeded
    """
    desk = visit.desk
    holder = await holder_in_browser(
        desk.db,
        desk.keyring,
        person,
        session_hash=sitting.request.browser_hash or b"",
        device_id=sitting.request.id,
    )
    needed = max(Level.TWO, await level_for(desk.checks, holder, act))
    if level_of(methods) < needed:
        raise StrongerProofNeeded
    return holder


async def _chosen(visit: Visit, consent: Consent, person: Person) -> list[Account]:
    """Return the accounts that the form names out of the person's own.

    Raises:
        NothingChosen
    """
    mine = await _choices(visit, consent, person)
    form = visit.request.form
    named = {form.get("account", "")}
    named |= {name.removeprefix("account.") for name in form if name.startswith("account.")}
    found = [each for each in mine if each.shown_id in named]
    if not found or (consent.kind is Kind.PAYMENT_INITIATION and len(found) > 1):
        raise NothingChosen
    return found


async def _choices(visit: Visit, consent: Consent, person: Person) -> list[Account]:
    mine = await visit.desk.holdings.accounts_of(person.id, consent.mode)
    if consent.kind is not Kind.PAYMENT_INITIATION:
        return mine
    return [
        each
        for each in mine
        if each.kind == "wallet"
        and each.is_active
        and each.currency == consent.currency
        and each.id != consent.payee
    ]


async def _sitting(visit: Visit) -> Sitting | None:
    """Return what this browser has open; one that comes with another request begins anew."""
    name = cookie_name(_COOKIE, is_https=visit.desk.is_https)
    browser = visit.request.cookies.get(name, "")
    request = await grants.request_of_browser(visit.desk.db, browser) if browser else None
    if request is None:
        return None
    comes_with = visit.request.query.get("request_uri") if visit.request.method == "GET" else None
    if comes_with and hashed(comes_with.removeprefix(URN)) != request.request_hash:
        return None
    consent = await consent_with_id(visit.desk.db, request.consent_id)
    return Sitting(request, consent, await partner_with_id(visit.desk.db, request.partner_id))


async def _open_sitting(visit: Visit) -> Sitting:
    """Return what this browser has open, for a form that is about it.

    Raises:
        RequestNotOpen
    """
    found = await _sitting(visit)
    if found is None or found.partner.state != "active":
        raise RequestNotOpen
    return found


async def _person(visit: Visit, sitting: Sitting) -> Person:
    if sitting.request.person_id is None:
        raise RequestNotOpen
    person = await person_with_id(visit.desk.db, sitting.request.person_id)
    if person.state != "active":
        raise RequestNotOpen
    return person


async def _step(visit: Visit, sitting: Sitting) -> Reply:
    """Show the page that this request is at."""
    if sitting.request.person_id is None:
        return _page(visit, "log_in.html", sitting, wrong=False)
    if sitting.request.message_code is not None:
        return await _confirm_page(visit, sitting, wrong="")
    person = await _person(visit, sitting)
    accounts = await _choices(visit, sitting.consent, person)
    return _page(visit, "choose.html", sitting, accounts=accounts)


async def _confirm_page(
    visit: Visit, sitting: Sitting, *, wrong: Literal["", "code", "passkey"], status: int = 200
) -> Reply:
    person = await _person(visit, sitting)
    chosen = set(sitting.request.chosen)
    mine = await visit.desk.holdings.accounts_of(person.id, sitting.consent.mode)
    accounts = [each for each in mine if each.id in chosen]
    [first, *_] = await contacts_of(visit.desk.db, person.id)
    return _page(
        *(visit, "confirm.html", sitting),
        status=status,
        accounts=accounts,
        wrong=wrong,
        sent_to=first.masked,
        asked=await _question(visit, sitting, person),
    )


async def _question(visit: Visit, sitting: Sitting, person: Person) -> PageQuestion | None:
    act = act_of(sitting.consent, sitting.partner, sitting.request.chosen)
    return await ask_passkey(visit.desk.checks, person.id, act, person.actor)


def _page(
    visit: Visit, template: str, sitting: Sitting, *, status: int = 200, **facts: Any
) -> Reply:
    """Return a page; its forms may end at the partner's address, and nowhere else but here."""
    back = urlsplit(sitting.request.redirect_uri)
    html = visit.desk.templates.render(
        template,
        visit.request.language,
        nonce=visit.nonce,
        consent=sitting.consent,
        partner=sitting.partner,
        mode=sitting.consent.mode,
        **facts,
    )
    form_action = f"'self' {back.scheme}://{back.netloc}"
    policy = page_policy(visit.nonce, trusted_types="'none'", form_action=form_action)
    return page_reply(html, status=status).also(policy, ("cache-control", "no-store"))


async def _back(visit: Visit, request: Authorisation, told: dict[str, str]) -> Reply:
    """Send the browser to the partner, who hears who answers (RFC 9207), signed where asked for."""
    desk, told = visit.desk, {**told, "iss": visit.desk.issuer}
    if request.client_state is not None:
        told["state"] = request.client_state
    if request.response_mode == "jwt":  # JARM §4.1
        end = int(real_now().timestamp()) + _ANSWER_LIFE_S
        claims = {**told, "aud": show(PREFIX, request.partner_id), "exp": end}
        told = {"response": await signed(desk.db, desk.keyring, claims)}
    query = urlencode(told)
    sign = "&" if urlsplit(request.redirect_uri).query else "?"
    gone = cookie(_COOKIE, "", is_https=visit.desk.is_https, max_age_s=0)
    headers = (("referrer-policy", "no-referrer"), ("cache-control", "no-store"))
    return redirect(f"{request.redirect_uri}{sign}{query}").also(gone, *headers)
