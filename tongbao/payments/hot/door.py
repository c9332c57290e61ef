"""The door of a process: which hot route takes which request to collect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tongbao.infra.admission.authentication import RememberedKeys
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.crypto import Keyring
from tongbao.infra.hot_routes import Answer, HotDoor, HotRequest, HotRoute
from tongbao.infra.request_log.model import Heard
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.hot.channels import PATH, ChannelPayments
from tongbao.payments.hot.route import WalletPayments

_CODE_MARK: Final = b'"auth_code"'


class ByCode:
    """Hands requests with a customer's payment code to one route and all others to another."""

    def __init__(self, with_code: HotRoute | None, without: HotRoute) -> None:
        self._with_code = with_code
        self._without = without

    def take(self, request: HotRequest, answered: Callable[[Answer], None]) -> None:
        """Answer by the route that it is for."""
        if _CODE_MARK not in request.signed.body:
            self._without.take(request, answered)
        elif self._with_code is not None:
            self._with_code.take(request, answered)
        else:
            answered(None)


def collecting_door(
    flow: Flow,
    keyring: Keyring,
    keys: RememberedKeys,
    limits: RateLimits | None = None,
    hear: Callable[[Heard], None] | None = None,
) -> HotDoor:
    """Return the door; behind an aggregator's there is no wallet."""
    own = None
    if flow.licence.may_hold_funds:
        own = WalletPayments(flow, keyring, keys, limits=limits)
    return HotDoor({PATH: ByCode(own, ChannelPayments(flow, keys, limits))}, hear)
