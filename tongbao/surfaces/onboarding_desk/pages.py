"""The pages of onboarding, with what each needs; wiring hands them to the console."""

from __future__ import annotations

from typing import Final

from tongbao.parties.identity.model import Permission
from tongbao.payments.registrations.registrations import Registrar
from tongbao.surfaces.onboarding_desk import applications, standings
from tongbao.surfaces.onboarding_desk.channels import Channels
from tongbao.surfaces.operator_console.visit import Route

_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.ONBOARDING_ACT


def pages(registrar: Registrar) -> tuple[Route, ...]:
    """Return the routes; what is decided about is licensed, an aggregator only forwards."""
    pictures, channels = applications.Pictures(registrar.blobs), Channels(registrar)
    one, registration = "/applications/{application_id}", "/registrations/{registration_id}"
    return (
        Route("GET", "/applications", applications.show_applications, _VIEW),
        Route("GET", one, applications.show_application, _VIEW),
        # A picture shows a person: only those who review look at it.
        Route("GET", f"{one}/documents/{{document_id}}", pictures.show, _ACT),
        Route("POST", f"{one}/open", applications.propose_open, _ACT, is_licensed=True),
        Route("POST", f"{one}/decline", applications.propose_decline, _ACT, is_licensed=True),
        Route("POST", f"{one}/return", applications.give_back, _ACT, is_licensed=True),
        Route("POST", f"{registration}/ask", channels.ask, _ACT),
        Route("POST", f"{registration}/result", channels.write, _ACT),
        Route("GET", "/merchants/{merchant_id}/standing", standings.show_standing, _VIEW),
        Route("POST", "/merchants/{merchant_id}/standing", standings.propose_change, _ACT),
    )
