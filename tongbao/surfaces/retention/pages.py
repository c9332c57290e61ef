"""The console's page of what is kept, for how long, and by what rule."""

from __future__ import annotations

from typing import Final

from tongbao.parties.identity.model import Permission
from tongbao.surfaces.operator_console.visit import Route, Visit
from tongbao.surfaces.page_kit.replies import Reply
from tongbao.surfaces.retention.kinds import held


async def show_retention(visit: Visit) -> Reply:
    """Return the list, with the proposals that wait."""
    rows = await held(visit.desk.db, visit.desk.flow.licence)
    return await visit.page("retention.html", {"rows": rows})


ROUTES: Final = (Route("GET", "/retention", show_retention, Permission.VIEW),)
