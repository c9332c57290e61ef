"""What the wallet's app serves of rooms beside the wallet's own, in one list."""

from __future__ import annotations

from typing import Final

from tongbao.surfaces.own_consents.routes import ROUTES as CONSENTS
from tongbao.surfaces.own_payments.agreements import ROUTES as AGREEMENTS
from tongbao.surfaces.own_payments.routes import ROUTES as PAYMENTS
from tongbao.surfaces.own_payments.wallets import ROUTES as WALLETS

ROUTES: Final = (*CONSENTS, *PAYMENTS, *WALLETS, *AGREEMENTS)
