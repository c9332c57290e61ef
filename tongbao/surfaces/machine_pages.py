"""The console's pages about the house itself: what must hold, and what is kept."""

from __future__ import annotations

from typing import Final

from tongbao.surfaces.invariants.pages import ROUTES as INVARIANTS
from tongbao.surfaces.retention.pages import ROUTES as RETENTION

ROUTES: Final = (*INVARIANTS, *RETENTION)
