"""Merchants and agents in the console, and every list of it as a file, for wiring to mount."""

from __future__ import annotations

from typing import Final

from tongbao.surfaces.list_files.routes import ROUTES as LIST_FILES
from tongbao.surfaces.merchants_desk.pages import ROUTES as MERCHANT_PAGES
from tongbao.surfaces.operator_console.visit import Route

ROUTES: Final[tuple[Route, ...]] = (*LIST_FILES, *MERCHANT_PAGES)
