"""The console's pages of every room beside its own, in one list."""

from __future__ import annotations

from tongbao.clearing.context import Clearing
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.kms.opening import KeyDesk
from tongbao.payments.registrations.registrations import Registrar
from tongbao.surfaces.disputes_desk.pages import console_routes as dispute_pages
from tongbao.surfaces.fees.pages import ROUTES as FEES
from tongbao.surfaces.four_eyes.routes import ROUTES as FOUR_EYES
from tongbao.surfaces.invariants.pages import ROUTES as INVARIANTS
from tongbao.surfaces.keys.pages import pages as key_pages
from tongbao.surfaces.list_files.routes import ROUTES as LIST_FILES
from tongbao.surfaces.merchants_desk.pages import ROUTES as MERCHANTS
from tongbao.surfaces.onboarding_desk.pages import pages as onboarding_pages
from tongbao.surfaces.operator_console.visit import Route
from tongbao.surfaces.own_factors.pages import ROUTES as OWN_FACTORS
from tongbao.surfaces.partners_desk.pages import ROUTES as PARTNERS
from tongbao.surfaces.payments_desk.combined import ROUTES as COMBINED
from tongbao.surfaces.payments_desk.parking import ROUTES as PARKING
from tongbao.surfaces.people_desk.pages import ROUTES as PEOPLE
from tongbao.surfaces.recon_desk.pages import ROUTES as RECONCILIATION
from tongbao.surfaces.recon_desk.sources import source_pages
from tongbao.surfaces.reserve.pages import ROUTES as RESERVE
from tongbao.surfaces.retention.pages import ROUTES as RETENTION
from tongbao.surfaces.settlement_desk.pages import pages as settlement_pages
from tongbao.surfaces.terminals.pages import ROUTES as TERMINALS


def console_rooms(
    keys: KeyDesk, clearing: Clearing, registrar: Registrar, blobs: Blobs
) -> tuple[Route, ...]:
    """Return the routes of a deployment that has these."""
    return (
        *(*FOUR_EYES, *TERMINALS, *PEOPLE, *OWN_FACTORS, *FEES),
        *(*LIST_FILES, *MERCHANTS, *PARTNERS, *COMBINED, *PARKING),
        *(*INVARIANTS, *RETENTION, *key_pages(keys)),
        *(*RESERVE, *RECONCILIATION, *source_pages(clearing), *settlement_pages(clearing)),
        *(*onboarding_pages(registrar), *dispute_pages(blobs)),
    )
