"""`tongbao application`, `tongbao agent`, `tongbao standing`: onboarding at the command line.

Whoever may type commands may propose; to decide takes another person, see `tongbao approvals`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from tongbao.controls.approvals.model import Approval
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import PAGE_MAX
from tongbao.parties.agents.agents import (
    PREFIX as AGENT,
)
from tongbao.parties.agents.agents import (
    add_agent,
    agent_with_id,
    assign_merchant,
    list_agents,
    set_agent_terms,
)
from tongbao.parties.agents.approving import (
    AgentTerms,
    BroughtTerms,
    propose_agent,
    propose_brought,
    propose_new_terms,
)
from tongbao.parties.agents.model import Agent
from tongbao.parties.identity.model import ROLES, Role
from tongbao.parties.merchants.model import MerchantState
from tongbao.parties.onboarding.model import PREFIX as APPLICATION
from tongbao.parties.onboarding.model import Application, ApplicationState
from tongbao.parties.onboarding.openings import propose_opening
from tongbao.parties.onboarding.queries import (
    ApplicationFilter,
    application_with_id,
    list_applications,
)
from tongbao.parties.onboarding.terms import publish_terms
from tongbao.parties.standing.standing import propose_standing
from tongbao.surfaces.cli.context import Context, Platform, Text, actor

_FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)
_DAY: Final = click.DateTime(formats=["%Y-%m-%d"])
_REASON: Final = click.option("--reason", required=True, help="Why, for those who read it later.")
_WHY: Final = click.option(
    "--reason", default="", help="Why; what is agreed for live fees a second person approves."
)
_MODE: Final = click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default="sandbox",
    show_default=True,
    help="Real money or test.",
)
_SHARE: Final = click.option(
    "--share-ppm",
    required=True,
    type=click.IntRange(0, 1_000_000),
    help="Of a fee, for the agent and everybody below it, in millionths.",
)
_BELOW: Final = click.option("--below", help="The agent it stands below; without: the house.")
_MAY: Final = frozenset(ROLES[Role.ADMIN])


@click.group()
def application() -> None:
    """Applications to become a merchant: list, show, propose to open."""


@application.command("list")
@click.option(
    "--status",
    type=click.Choice([each.value for each in ApplicationState]),
    help="Only those that stand here.",
)
@click.option("--limit", default=20, show_default=True, help="How many of the newest.")
@click.pass_obj
def application_list(context: Context, status: str | None, limit: int) -> None:
    """List applications, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        wanted = ApplicationFilter(state=ApplicationState(status) if status else None)
        page = await list_applications(platform.db, wanted, cursor=None, limit=limit)
        return [_application(each) for each in page.items]

    context.show(context.run(work))


@application.command("open")
@click.argument("application_id")
@_REASON
@click.pass_obj
def application_open(context: Context, application_id: str, reason: str) -> None:
    """Propose to open the merchant, as its application stands now."""

    async def work(platform: Platform) -> dict[str, object]:
        found = await application_with_id(platform.db, parse(APPLICATION, application_id))
        async with platform.db.begin(actor()) as tx:
            proposed = await propose_opening(
                tx, found.id, version=found.version, reason=reason, may=_MAY
            )
        return _proposed(proposed)

    context.show(context.run(work))


@application.command("publish-terms")
@click.argument("file", type=_FILE)
@click.option("--title", required=True, type=Text(200), help="What the terms are called.")
@click.pass_obj
def application_terms(context: Context, file: Path, title: str) -> None:
    """Publish the next version of the terms that merchants sign; who applies signs it anew."""
    content = file.read_text("utf-8")

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            made = await publish_terms(tx, title=title, content=content)
        return {"version": made.version, "sha256": made.sha256.hex(), "title": made.title}

    context.show(context.run(work))


@click.group()
def agent() -> None:
    """Agents: who brings merchants, below whom, for which share of their fees."""


@agent.command("add")
@click.argument("merchant")
@_MODE
@click.option("--name", required=True, type=Text(128), help="What the agent is called.")
@_SHARE
@_BELOW
@_WHY
@click.pass_obj
def agent_add(context: Context, /, merchant: str, *, mode: str, reason: str, **said: Any) -> None:
    """Make a merchant an agent; its keys apply for others, its account gets its commissions."""
    name, share_ppm, below = said["name"], said["share_ppm"], said["below"]

    async def work(platform: Platform) -> dict[str, object]:
        parent_id = parse(AGENT, below) if below else None
        async with platform.db.begin(actor()) as tx:
            if Mode(mode) is Mode.LIVE:
                terms = AgentTerms(merchant, Mode.LIVE, name, share_ppm, below)
                return _proposed(await propose_agent(tx, terms, reason=reason, may=_MAY))
            made = await add_agent(
                tx,
                parse("mch", merchant),
                Mode(mode),
                name=name,
                share_ppm=share_ppm,
                parent_id=parent_id,
            )
        return _agent(made)

    context.show(context.run(work))


@agent.command("terms")
@click.argument("agent_id")
@_SHARE
@_BELOW
@_WHY
@click.pass_obj
def agent_terms(
    context: Context, agent_id: str, share_ppm: int, below: str | None, *, reason: str
) -> None:
    """Agree another share, or put the agent below another, from now on."""

    async def work(platform: Platform) -> dict[str, object]:
        found = await agent_with_id(platform.db, parse(AGENT, agent_id))
        parent_id = parse(AGENT, below) if below else None
        async with platform.db.begin(actor()) as tx:
            if found.mode is Mode.LIVE:
                return _proposed(
                    await propose_new_terms(
                        tx, found.id, share_ppm=share_ppm, below=below, reason=reason, may=_MAY
                    )
                )
            changed = await set_agent_terms(
                tx, found.id, found.mode, share_ppm=share_ppm, parent_id=parent_id
            )
        return _agent(changed)

    context.show(context.run(work))


@agent.command("brought")
@click.argument("agent_id")
@click.argument("merchant")
@_WHY
@click.pass_obj
def agent_brought(context: Context, agent_id: str, merchant: str, *, reason: str) -> None:
    """Say that an agent brought a merchant: it shares in the fees from now on."""

    async def work(platform: Platform) -> dict[str, object]:
        found = await agent_with_id(platform.db, parse(AGENT, agent_id))
        async with platform.db.begin(actor()) as tx:
            if found.mode is Mode.LIVE:
                terms = BroughtTerms(merchant, Mode.LIVE, agent_id)
                return _proposed(await propose_brought(tx, terms, reason=reason, may=_MAY))
            await assign_merchant(tx, parse("mch", merchant), found.mode, found)
        return {"merchant": merchant, "mode": found.mode.value, "agent": agent_id}

    context.show(context.run(work))


@agent.command("list")
@click.option(
    "--limit",
    default=20,
    type=click.IntRange(1, PAGE_MAX),
    show_default=True,
    help="How many of the newest.",
)
@click.pass_obj
def agent_list(context: Context, limit: int) -> None:
    """List agents, newest first."""

    async def work(platform: Platform) -> list[dict[str, object]]:
        page = await list_agents(platform.db, mode=None, cursor=None, limit=limit)
        return [_agent(each) for each in page.items]

    context.show(context.run(work))


@click.command("standing")
@click.argument("merchant")
@click.argument("after", type=click.Choice([each.value for each in MerchantState]))
@_REASON
@click.option("--until", type=_DAY, help="Leaving: the last day on which money is kept.")
@click.pass_obj
def standing(
    context: Context, merchant: str, after: str, *, reason: str, until: datetime | None
) -> None:
    """Propose another standing of a merchant: suspended, held, stopped, leaving, or active."""

    async def work(platform: Platform) -> dict[str, object]:
        async with platform.db.begin(actor()) as tx:
            proposed = await propose_standing(
                tx,
                parse("mch", merchant),
                MerchantState(after),
                reason=reason,
                may=_MAY,
                reserve_until=until.date() if until else None,
            )
        return _proposed(proposed)

    context.show(context.run(work))


COMMANDS: Final = (application, agent, standing)


def _proposed(found: Approval) -> dict[str, object]:
    return {"approval": found.shown_id, "act": found.act, "state": found.state.value}


def _application(found: Application) -> dict[str, object]:
    opened = found.opened_merchant_id
    return {
        "id": show(APPLICATION, found.id),
        "number": found.application_no,
        "firm": found.form.firm.legal_name,
        "mode": found.mode.value,
        "status": found.state.value,
        "merchant": show("mch", opened) if opened else None,
    }


def _agent(found: Agent) -> dict[str, object]:
    return {
        "id": show(AGENT, found.id),
        "merchant": show("mch", found.merchant_id),
        "mode": found.mode.value,
        "name": found.name,
        "depth": found.depth,
        "below": show(AGENT, found.parent_id) if found.parent_id else None,
        "share_ppm": found.share_ppm,
    }
