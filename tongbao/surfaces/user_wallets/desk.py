"""A visit to the pages of a merchant's wallets: one request, and what its pages are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from tongbao.infra.db import Db
from tongbao.infra.settings import Settings
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.licence import Licence
from tongbao.parties.authentication.step_up import Checks
from tongbao.parties.e_accounts.orders import Teller
from tongbao.parties.merchants.model import Merchant
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.people.dossier import person_with_id
from tongbao.parties.people.model import Person
from tongbao.parties.user_wallets.model import Sitting
from tongbao.parties.user_wallets.sittings import Seat, SittingOver, seat_of
from tongbao.payments.collecting.outcomes import Flow
from tongbao.surfaces.cashier.desk import Throttle
from tongbao.surfaces.page_kit.rendering import templates_of
from tongbao.surfaces.page_kit.replies import (
    Reply,
    cookie,
    cookie_name,
    page_policy,
    page_reply,
    redirect,
)
from tongbao.surfaces.page_kit.requests import PageRequest
from tongbao.surfaces.user_wallets.api import PAGES
from tongbao.surfaces.user_wallets.paying import carrier_of
from tongbao.surfaces.wallet.desk import Desk as PeopleDesk

HERE: Final = Path(__file__).parent
BROWSER: Final = "tongbao_wallet"
DEVICE: Final = "tongbao_device"
DEVICE_KEPT_S: Final = 400 * 86_400
TRIES_OF_SITTING: Final = 20
"""How often a form may be sent for one link."""
TRIES_PER_MINUTE: Final = 600
"""How often from one address, behind which there may be many people."""


class Desk:
    """How people prove themselves, whom their names are asked of, and what moves their money."""

    def __init__(self, people: PeopleDesk, flow: Flow, settings: Settings) -> None:
        self.people = people
        self.licence: Licence = settings.licence
        self.carrier = carrier_of(flow, Teller(people.db, flow.ledger, people.cards))
        self.public_url = settings.public_url.rstrip("/")
        self.is_https = self.public_url.startswith("https://")
        self.tries = Throttle(TRIES_OF_SITTING, 600.0)
        self.tries_from = Throttle(TRIES_PER_MINUTE, 60.0)
        self.templates = templates_of(PAGES, HERE)

    @property
    def db(self) -> Db:
        """The database."""
        return self.people.db

    @property
    def checks(self) -> Checks:
        """What proofs are checked with."""
        return self.people.checks


class Visit(Struct, frozen=True):
    """One request of a browser."""

    desk: Desk
    request: PageRequest
    nonce: str
    source: str

    @property
    def language(self) -> Any:
        """The visitor's language: zh or en."""
        return self.request.language

    def field(self, name: str, most: int) -> str:
        """Return a field of the form, cut to its length."""
        return self.request.form.get(name, "")[:most]

    def cookie(self, name: str) -> str:
        """Return a cookie of ours, or nothing."""
        return self.request.cookies.get(cookie_name(name, is_https=self.desk.is_https), "")

    async def seat(self) -> Seat | None:
        """Return what this browser has open."""
        browser = self.cookie(BROWSER)
        return await seat_of(self.desk.db, browser) if browser else None

    async def open_seat(self) -> Seat:
        """Return what this browser has open, for a form about it, within the pace.

        Raises:
            SittingOver, TooManyRequests
        """
        found = await self.seat()
        if found is None:
            raise SittingOver
        desk = self.desk
        if not desk.tries.lets_through(found.sitting.id.hex) or not desk.tries_from.lets_through(
            self.source
        ):
            raise TooManyRequests
        return found

    async def person(self, sitting: Sitting) -> Person:
        """Return who sits here.

        Raises:
            SittingOver
        """
        if sitting.person_id is None:
            raise SittingOver
        person = await person_with_id(self.desk.db, sitting.person_id)
        if person.state != "active":
            raise SittingOver
        return person

    async def page(self, template: str, seat: Seat, *, status: int = 200, **facts: Any) -> Reply:
        """Return a page; its forms may end at the merchant's address, and nowhere else but here."""
        merchant: Merchant = await merchant_with_id(self.desk.db, seat.sitting.merchant_id)
        back = urlsplit(seat.sitting.return_url)
        html = self.desk.templates.render(
            template,
            self.request.language,
            nonce=self.nonce,
            mode=seat.sitting.mode,
            merchant=merchant.name,
            application=seat.application,
            proposal=seat.proposal,
            **facts,
        )
        form_action = f"'self' {back.scheme}://{back.netloc}"
        policy = page_policy(self.nonce, trusted_types="'none'", form_action=form_action)
        return page_reply(html, status=status).also(policy, ("cache-control", "no-store"))

    def back(self, sitting: Sitting, told: dict[str, str]) -> Reply:
        """Send the browser to the merchant, and forget what it had open."""
        sign = "&" if urlsplit(sitting.return_url).query else "?"
        gone = cookie(BROWSER, "", is_https=self.desk.is_https, max_age_s=0)
        headers = (("referrer-policy", "no-referrer"), ("cache-control", "no-store"))
        to = f"{sitting.return_url}{sign}{urlencode(told)}"
        return redirect(to).also(gone, *headers)

    def again(self) -> Reply:
        """Show what the sitting is at now."""
        return redirect(PAGES)
