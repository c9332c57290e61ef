"""The console's pages about the house itself: what must hold, what is kept, and its keys."""

from __future__ import annotations

from tongbao.infra.kms.opening import KeyDesk
from tongbao.surfaces.invariants.pages import ROUTES as INVARIANTS
from tongbao.surfaces.keys.pages import pages as key_pages
from tongbao.surfaces.operator_console.visit import Route
from tongbao.surfaces.retention.pages import ROUTES as RETENTION


def machine_pages(keys: KeyDesk) -> tuple[Route, ...]:
    """Return the routes of a deployment with these keys."""
    return (*INVARIANTS, *RETENTION, *key_pages(keys))
