"""Every kind of raw evidence that is erased by rule, and the other rules on what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from msgspec import Struct

from tongbao.clearing.complaints.queries import EXCHANGES_KEPT as COMPLAINTS
from tongbao.clearing.payouts.queries import EXCHANGES_KEPT as PAYOUTS
from tongbao.clearing.transfers.queries import EXCHANGES_KEPT as TRANSFERS
from tongbao.controls.retention.model import Raw, term_at
from tongbao.controls.retention.sweeping import erase_old, progress_of_all
from tongbao.controls.retention.terms import every_term
from tongbao.infra.db import Db
from tongbao.infra.request_log import queries as request_log
from tongbao.kernel.clock import business_date, real_now
from tongbao.kernel.licence import Licence
from tongbao.ledger.queries import books
from tongbao.parties.onboarding.queries import UNOPENED_KEPT as APPLICATIONS
from tongbao.parties.people.dossier import kept_by_law
from tongbao.parties.user_wallets.queries import UNOPENED_KEPT
from tongbao.payments.agreements.queries import EXCHANGES_KEPT as AGREEMENTS
from tongbao.payments.callbacks.queries import BODIES_KEPT
from tongbao.payments.collecting.queries import EXCHANGES_KEPT as PAYMENTS
from tongbao.payments.parking.queries import EXCHANGES_KEPT as PARKING
from tongbao.payments.registrations.queries import EXCHANGES_KEPT as REGISTRATIONS

KINDS: Final[Sequence[Raw]] = (
    *BODIES_KEPT,
    PAYMENTS,
    AGREEMENTS,
    PARKING,
    REGISTRATIONS,
    UNOPENED_KEPT,
    APPLICATIONS,
    COMPLAINTS,
    PAYOUTS,
    TRANSFERS,
)


class Held(Struct, frozen=True):
    """One kind of what is kept, for people to read. ``term`` is as the rule says it."""

    kind: str
    en: str
    zh: str
    term: str
    because: str
    erased: int | None = None  # rows so far; None where rows go whole
    oldest: str | None = None  # everything before this day is erased


def kinds_under(licence: Licence) -> list[Raw]:
    """Return the kinds that a deployment has."""
    return [each for each in KINDS if licence.may_hold_funds or not each.is_licensed]


async def erase_what_is_old(db: Db, licence: Licence) -> int:
    """Erase a batch of what was kept long enough; return how many rows."""
    of_books = [each.book for each in await books(db)]
    return await erase_old(db, kinds_under(licence), of_books)


async def held(db: Db, licence: Licence) -> list[Held]:
    """Return everything that goes by a rule, with the rule that counts today."""
    today, terms = business_date(real_now()), await every_term(db)
    done: dict[str, int] = {}
    for each in await progress_of_all(db):
        done[each.kind] = done.get(each.kind, 0) + each.erased
    found = []
    for raw in kinds_under(licence):
        term = term_at(terms, raw.kind, today)
        if term is None:
            found.append(Held(raw.kind, raw.en, raw.zh, "–", "", done.get(raw.kind, 0)))
            continue
        oldest = (today - timedelta(days=term.days)).isoformat()
        count = done.get(raw.kind, 0)
        said = (f"{term.days} d", term.because, count, oldest)
        found.append(Held(raw.kind, raw.en, raw.zh, *said))
    for mode, days, because in await request_log.terms_at(db, today):
        what = (f"request_log/{mode}", f"The request log, {mode}", f"请求日志（{mode}）")
        found.append(Held(*what, f"{days} d", because))
    if licence.may_hold_funds:
        law = await kept_by_law(db, today)
        if law is not None:
            years, instrument = law
            what = ("identity", "Who somebody is, after erasure", "注销后保留的身份资料")
            found.append(Held(*what, f"{years} y", instrument))
    return found
