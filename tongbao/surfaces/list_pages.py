"""The console's lists of firms and of what they collect, and every list as a file."""

from __future__ import annotations

from typing import Final

from tongbao.surfaces.list_files.routes import ROUTES as LIST_FILES
from tongbao.surfaces.merchants_desk.pages import ROUTES as MERCHANT_PAGES
from tongbao.surfaces.operator_console.visit import Route
from tongbao.surfaces.partners_desk.pages import ROUTES as PARTNER_PAGES
from tongbao.surfaces.payments_desk.combined import ROUTES as COMBINED_PAGES
from tongbao.surfaces.payments_desk.parking import ROUTES as PARKING_PAGES

ROUTES: Final[tuple[Route, ...]] = (
    *LIST_FILES,
    *MERCHANT_PAGES,
    *PARTNER_PAGES,
    *COMBINED_PAGES,
    *PARKING_PAGES,
)
