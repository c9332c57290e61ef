"""The routes of registrations: how an application stands at its channels, and sending it again."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from msgspec import UNSET, Struct, UnsetType

from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller, needs
from tongbao.kernel.ids import parse, show
from tongbao.parties.onboarding import model as onboarding
from tongbao.parties.onboarding.model import Application, ApplicationNotFound
from tongbao.parties.onboarding.queries import application_of_caller
from tongbao.payments.registrations import _store as store
from tongbao.payments.registrations.model import (
    PREFIX,
    Registration,
    RegistrationContended,
    RegistrationNotFound,
    RegistrationNotRejected,
    RegistrationState,
)
from tongbao.payments.registrations.registrations import registration_with_id, send_again
from tongbao.rails.channels.capabilities.registrations import RejectedField


class RegistrationView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an application stands at one channel.

    The merchant is to go to ``action_url``; ``reasons`` say what the channel wants corrected.
    """

    id: str
    object: Literal["registration"]
    application_id: str
    channel: str
    status: RegistrationState
    created_at: datetime
    reasons: list[RejectedField]
    sub_merchant: str | UnsetType = UNSET
    action_url: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


class Registrations(Struct, frozen=True):
    """An application's registrations, one for each channel it asked for."""

    items: list[RegistrationView]


@get(
    "/v1/applications/{application_id:str}/registrations",
    opt=needs("applications:read", refuses=[ApplicationNotFound]),
)
async def get_registrations(application_id: str, db: Db, caller: Caller) -> Registrations:
    """Return how the application stands at each of its channels."""
    application = await _own(db, caller, application_id)
    return Registrations(
        [view_registration(each) for each in await store.REGISTRATIONS.all(db, application.id)]
    )


@get(
    "/v1/registrations/{registration_id:str}",
    opt=needs("applications:read", refuses=[RegistrationNotFound]),
)
async def get_registration(registration_id: str, db: Db, caller: Caller) -> RegistrationView:
    """Return how an application stands at one channel."""
    return view_registration((await _own_registration(db, caller, registration_id))[0])


@post(
    "/v1/registrations/{registration_id:str}/send_again",
    status_code=200,
    opt=needs(
        "applications:write",
        refuses=[RegistrationNotFound, RegistrationNotRejected, RegistrationContended],
    ),
)
async def send_registration_again(registration_id: str, db: Db, caller: Caller) -> RegistrationView:
    """Send what a channel rejected again, corrected by amending the application before."""
    found, application = await _own_registration(db, caller, registration_id)
    async with db.begin(caller.actor) as tx:
        return view_registration(await send_again(tx, application, found.channel))


ROUTES: Final[list[HTTPRouteHandler]] = [
    get_registrations,
    get_registration,
    send_registration_again,
]


def view_registration(registration: Registration) -> RegistrationView:
    """Return a registration as its applicant may see it."""
    return RegistrationView(
        id=show(PREFIX, registration.id),
        object="registration",
        application_id=show(onboarding.PREFIX, registration.application_id),
        channel=registration.channel,
        status=registration.state,
        created_at=registration.created_at,
        reasons=registration.reasons,
        sub_merchant=registration.sub_merchant or UNSET,
        action_url=registration.action_url or UNSET,
        ended_at=registration.ended_at or UNSET,
    )


async def _own(db: Db, caller: Caller, application_id: str) -> Application:
    return await application_of_caller(db, caller, parse(onboarding.PREFIX, application_id))


async def _own_registration(
    db: Db, caller: Caller, registration_id: str
) -> tuple[Registration, Application]:
    found = await registration_with_id(db, parse(PREFIX, registration_id))
    try:
        return found, await application_of_caller(db, caller, found.application_id)
    except ApplicationNotFound:
        raise RegistrationNotFound from None
