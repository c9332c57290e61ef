"""The board of lights: every invariant, its last word, and since when it is red."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from tongbao.parties.identity.model import Permission
from tongbao.surfaces.invariants._store import Light
from tongbao.surfaces.invariants.rounds import run_round
from tongbao.surfaces.invariants.running import chosen, lights
from tongbao.surfaces.operator_console.visit import PREFIX, Route, Visit
from tongbao.surfaces.page_kit.replies import Reply, redirect


async def show_lights(visit: Visit) -> Reply:
    """Return the board."""
    licence = visit.desk.flow.licence
    last = {each.name: each for each in await lights(visit.desk.db)}
    rows = [(each, last.get(each.name)) for each in chosen((), licence)]
    facts = {
        "rows": [(each, light, _state(light)) for each, light in rows],
        "red": sum(1 for _, light in rows if light is not None and light.breaches),
        "done": visit.request.query.get("done"),
    }
    return await visit.page("invariants.html", facts)


def _state(light: Light | None) -> str:
    if light is None:
        return "created"
    return "failed" if light.breaches else "succeeded"


async def run_quick(visit: Visit) -> Reply:
    """Look at what is new now, and at everything of what is red."""
    await run_round(visit.desk.db, visit.desk.flow.licence, red_again=timedelta(0))
    return redirect(f"{PREFIX}/invariants?done=run")


ROUTES: Final = (
    Route("GET", "/invariants", show_lights, Permission.VIEW),
    Route("POST", "/invariants", run_quick, Permission.DEPLOYMENT_ACT),
)
