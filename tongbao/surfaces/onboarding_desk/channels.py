"""What operators do about a registration: ask the channel now, or write down what it answered."""

from __future__ import annotations

from tongbao.infra import audit
from tongbao.kernel.ids import parse, show
from tongbao.parties.onboarding.model import PREFIX as APPLICATION
from tongbao.payments.registrations.model import PREFIX as REGISTRATION
from tongbao.payments.registrations.registrations import (
    Registrar,
    look,
    registration_with_id,
    write_result,
)
from tongbao.surfaces.onboarding_desk.applications import FormIncomplete
from tongbao.surfaces.operator_console.actions import NothingToAsk
from tongbao.surfaces.operator_console.visit import PREFIX, Visit
from tongbao.surfaces.page_kit.replies import Reply, redirect


class Channels:
    """The acts that need the channels themselves."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar

    async def ask(self, visit: Visit) -> Reply:
        """Ask the channel now how a registration stands, or send what waits.

        Raises:
            UnknownId, RegistrationNotFound, NothingToAsk, RegistrationContended
        """
        shown = visit.params["registration_id"]
        found = await registration_with_id(visit.desk.db, parse(REGISTRATION, shown))
        if not found.state.is_chased:
            raise NothingToAsk
        async with visit.desk.db.begin(visit.operator.actor) as tx:
            await audit.record(tx, "registration.asked", shown, {})
        await look(self._registrar, found)
        return redirect(
            f"{PREFIX}/applications/{show(APPLICATION, found.application_id)}?done=asked"
        )

    async def write(self, visit: Visit) -> Reply:
        """Write down the number that a channel without such calls gave the merchant.

        Raises:
            UnknownId, RegistrationNotFound, FormIncomplete, RegistrationNotManual
        """
        form = visit.request.form
        number = form.get("number", "").strip()
        if not 0 < len(number) <= 64:
            raise FormIncomplete(param="number")
        found = await registration_with_id(
            visit.desk.db, parse(REGISTRATION, visit.params["registration_id"])
        )
        account_id = parse("chn", form.get("account", ""))
        async with visit.desk.db.begin(visit.operator.actor) as tx:
            await write_result(tx, found, sub_merchant=number, account_id=account_id)
        return redirect(
            f"{PREFIX}/applications/{show(APPLICATION, found.application_id)}?done=written"
        )
