"""How often logins may fail from one place on the network, at every door that people come in by.

A try is counted before anything is looked up, on a locked row, and given back when it succeeds: so
whoever tries many names from one place is stopped, tries at the same moment included, and nothing
tells whether one of the names exists. The place is the peer's address, or the one that a proxy we
trust names (uvicorn's `forwarded_allow_ips`): a header of anybody else changes nothing. Addresses
are kept as keyed hashes.
"""

from __future__ import annotations

import ipaddress
import math
from datetime import date, datetime, timedelta
from typing import Final, Literal

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.admission import _store as store
from tongbao.infra.admission.rate_limits import LoginSourceRule
from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Db
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.errors import Overloaded

Entrance = Literal["person", "operator", "staff", "developer"]

EVERY_RULE: Final = store.EVERY_SOURCE_RULE
"""Every dated row, past and future ones too."""
ADD_RULE: Final = store.ADD_SOURCE_RULE
"""Adds one, which two people agreed to."""
_PURPOSE: Final = "login.source"
_KEPT: Final = timedelta(days=2)
_PRUNED_MAX: Final = 5_000


class LoginsTooMany(Overloaded):
    """Too many logins failed from this place on the network."""

    code = "login.too_many_from_source"
    advice = "Wait Retry-After seconds; a login from another network is not held up."
    advice_zh = "请在 Retry-After 秒后重试，或换一个网络登录。"
    retry_after_s = 60


class Knock(Struct, frozen=True):
    """A try that was counted: where each count is, to be given back if it succeeds."""

    counts: tuple[tuple[bytes, int, datetime], ...] = ()


async def knock(db: Db, keyring: Keyring, entrance: Entrance) -> Knock:
    """Count a try to log in from where this request comes from.

    Raises:
        LoginsTooMany
    """
    source = audit.source_of_request()
    if source is None:  # the command line, which whoever holds the machine has
        return Knock()
    address = _address(source)
    family = 4 if isinstance(address, ipaddress.IPv4Address) else 6
    now, counts = real_now(), []
    rows = await store.LOGIN_SOURCE_RULES.all(db, entrance, family)
    for rule in rules_in_force(rows, business_date(now)):
        place = prefix_of(address, rule.prefix_bits)
        key = keyring.mac_key(_PURPOSE)
        subject = hmac_sha256(key, bind(entrance, place))
        starts = now.timestamp() // rule.period_s * rule.period_s
        at = datetime.fromtimestamp(starts, tz=now.tzinfo)
        if not await store.COUNT_LOGIN.run(db, subject, rule.period_s, at, rule.most):
            wait_s = max(1, math.ceil(starts + rule.period_s - now.timestamp()))
            raise LoginsTooMany(retry_after_s=wait_s)
        counts.append((subject, rule.period_s, at))
    return Knock(tuple(counts))


async def let_in(db: Db, knocked: Knock) -> None:
    """Give the try back: it succeeded. Whoever dies before that has one try less for a while."""
    for count in knocked.counts:
        await store.GIVE_LOGIN_BACK.run(db, *count)


async def prune_login_tries(db: Db) -> int:
    """Forget tries of periods that are over, some at once; return how many."""
    return await store.PRUNE_LOGINS.run(db, real_now() - _KEPT, _PRUNED_MAX)


def rules_in_force(rules: list[LoginSourceRule], today: date) -> list[LoginSourceRule]:
    """Return what counts on a day: of each prefix and period the newest row, if it limits.

    The narrowest comes first: what an address may not do is not counted against its network.
    """
    newest: dict[tuple[int, int], LoginSourceRule] = {}
    for rule in sorted(rules, key=lambda each: each.valid_from):
        if rule.valid_from <= today:
            newest[rule.prefix_bits, rule.period_s] = rule
    places = sorted(newest, key=lambda key: (-key[0], key[1]))
    return [newest[place] for place in places if newest[place].most is not None]


def prefix_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address | str, bits: int) -> str:
    """Return the network that an address is in, or what is no address as it stands."""
    if isinstance(address, str):
        return address
    return str(ipaddress.ip_network((address, bits), strict=False))


def _address(source: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | str:
    """Return the address; IPv4 in the dress of IPv6 is IPv4, or it had two counts."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
