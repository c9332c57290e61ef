"""A visit to the cashier: one request, what its pages are given, and how fast anybody may ask."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.web.problem import TooManyRequests
from tongbao.kernel.clock import monotonic
from tongbao.payments.checkouts.model import PREFIX
from tongbao.payments.collecting.outcomes import Flow
from tongbao.surfaces.page_kit.rendering import templates_of
from tongbao.surfaces.page_kit.replies import Reply, page_policy, page_reply
from tongbao.surfaces.page_kit.requests import PageRequest

HERE: Final = Path(__file__).parent
NO_MARKUP: Final = "'none'"
"""Trusted types: no script of ours makes markup."""
ACTS_PER_MINUTE: Final = 30
"""What one address may send us by forms; several customers can share one."""
LOOK_EVERY_S: Final = 3.0
"""How often a customer can make us ask the channel about one payment."""
SYMBOLS: Final = {"CNY": "¥", "HKD": "HK$", "MOP": "MOP$", "TWD": "NT$", "USD": "$", "EUR": "€"}


class Throttle:
    """Lets a key through so many times in so many seconds, in this process.

    A sliding count of two windows. Keys that were quiet longest are forgotten first.
    """

    KEYS_MAX: Final = 20_000

    def __init__(self, times: int, per_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._times = times
        self._per_s = per_s
        self._clock = clock
        self._counts: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def lets_through(self, key: str) -> bool:
        """Count one use and return whether it is within the pace; one that is not, is not counted.

        Within the pace is: this window's uses, and those of the last one by the share of it that is
        less than a window ago, are fewer than may be.
        """
        window, part = divmod(self._clock() / self._per_s, 1)
        seen, now, before = self._counts.pop(key, (int(window), 0, 0))
        if seen != int(window):
            now, before = 0, now if seen == int(window) - 1 else 0
        allowed = now + before * (1 - part) < self._times
        self._counts[key] = (int(window), now + allowed, before)
        if len(self._counts) > self.KEYS_MAX:
            self._counts.popitem(last=False)
        return allowed


class Desk:
    """What the cashier works with, built once."""

    def __init__(self, flow: Flow, keyring: Keyring, public_url: str) -> None:
        self.flow = flow
        self.keyring = keyring
        self.public_url = public_url.rstrip("/")
        self.is_https = self.public_url.startswith("https://")
        self.templates = templates_of(PREFIX, HERE)
        self.acts = Throttle(ACTS_PER_MINUTE, 60.0)
        self.looks = Throttle(1, LOOK_EVERY_S)

    @property
    def db(self) -> Db:
        """The database."""
        return self.flow.db


class Visit(Struct, frozen=True):
    """One request."""

    desk: Desk
    request: PageRequest
    params: Mapping[str, str]
    nonce: str
    client_ip: str

    def page(
        self,
        template: str,
        facts: Mapping[str, object],
        *,
        status: int = 200,
        form_action: str = "'self'",
    ) -> Reply:
        """Return a page, with the policy its script and forms keep to."""
        html = self.desk.templates.render(
            template,
            self.request.language,
            nonce=self.nonce,
            here=self.request.path,
            symbols=SYMBOLS,
            now=self.desk.db.clock.now(),
            **facts,
        )
        policy = page_policy(self.nonce, trusted_types=NO_MARKUP, form_action=form_action)
        return page_reply(html, status=status).also(policy)

    def check_pace(self) -> None:
        """Raise when this address sends more than a customer would.

        Raises:
            TooManyRequests
        """
        if not self.desk.acts.lets_through(self.client_ip):
            raise TooManyRequests


View = Callable[[Visit], Awaitable[Reply]]


class Route(Struct, frozen=True):
    """One method of one address below the cashier, open to whoever knows the address."""

    method: str
    pattern: str
    view: View

    def match(self, path: str) -> dict[str, str] | None:
        """Return the named parts of a path that fits, or None."""
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.pattern), path)
        return found.groupdict() if found else None
