"""Wallets that your app opens for your own users, on pages of the bank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Unpack, cast

from tongbao_sdk.replies import (
    UserBalance,
    WalletApplication,
    WalletLine,
    WalletLink,
    WalletProgramme,
    WalletProposal,
)
from tongbao_sdk.transport import Once, Transport, path_of

Grant = Literal["balance", "statement", "propose"]
WalletStatus = Literal["created", "in_progress", "opened", "refused", "expired", "ended"]
ProposalKind = Literal["payment", "top_up", "withdrawal", "transfer"]
ProposalStatus = Literal["awaiting", "processing", "done", "failed", "declined", "expired"]


class WalletProgrammes:
    """Say what you ask your users for."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def set(
        self,
        *,
        name: str,
        return_urls: Sequence[str],
        account_class: int,
        grants: Sequence[Grant],
        each_max: int,
        day_max: int,
    ) -> WalletProgramme:
        """Say what the next users are asked for; limits are minor units of CNY.

        Of a programme that was admitted in real money, other terms are ``waiting`` until somebody
        of the bank has agreed.

        Raises:
            Refused, Unanswered
        """
        body = {
            "name": name,
            "return_urls": list(return_urls),
            "account_class": account_class,
            "grants": list(grants),
            "each_max": each_max,
            "day_max": day_max,
        }
        return cast("WalletProgramme", self._transport.post(path_of("wallet_programmes"), body))

    def list(self) -> Iterator[WalletProgramme]:
        """Yield your programme in this mode, if there is one."""
        return self._transport.pages(path_of("wallet_programmes"))


class WalletApplications:
    """Open wallets for your users, and look at them as far as each user lets you."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, user_id: str, **once: Unpack[Once]) -> WalletApplication:
        """Begin for a user, whom ``user_id`` names for ever; there is one application for each.

        Raises:
            Refused, Unanswered
        """
        body = {"user_id": user_id}
        made = self._transport.post(path_of("wallet_applications"), body, **once)
        return cast("WalletApplication", made)

    def get(self, application_id: str) -> WalletApplication:
        """Return one application."""
        found = self._transport.get(path_of("wallet_applications", application_id))
        return cast("WalletApplication", found)

    def list(
        self, *, user_id: str | None = None, status: WalletStatus | None = None, limit: int = 100
    ) -> Iterator[WalletApplication]:
        """Yield applications, newest first."""
        path = path_of("wallet_applications")
        return self._transport.pages(path, user_id=user_id, status=status, limit=limit)

    def link(
        self, application_id: str, return_url: str, *, purpose: Literal["open", "manage"] = "open"
    ) -> WalletLink:
        """Return a link to send the user to; an earlier one ends by it.

        Raises:
            Refused, Unanswered
        """
        path = path_of("wallet_applications", application_id, "links")
        body = {"return_url": return_url, "purpose": purpose}
        return cast("WalletLink", self._transport.post(path, body))

    def balance(self, application_id: str) -> UserBalance:
        """Return what the wallet holds, where the user lets you see it."""
        path = path_of("wallet_applications", application_id, "balance")
        return cast("UserBalance", self._transport.get(path))

    def lines(self, application_id: str, *, limit: int = 100) -> Iterator[WalletLine]:
        """Yield what was moved, newest first, where the user lets you see it."""
        path = path_of("wallet_applications", application_id, "lines")
        return self._transport.pages(path, limit=limit)


class WalletProposals:
    """Propose movements, each of which the user confirms on a page of the bank."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        merchant_proposal_no: str,
        application_id: str,
        *,
        kind: ProposalKind,
        amount: int,
        purpose: str,
        payee: str | None = None,
        payment_code: str | None = None,
        currency: str = "CNY",
        expires_in_s: int = 1800,
        **once: Unpack[Once],
    ) -> WalletProposal:
        """Propose ``amount`` minor units.

        Only a transfer names a ``payee``, and only a payment a ``payment_code``: the ``code_url``
        that a payment of yours over the channel ``wallet`` shows, of the same amount.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_proposal_no": merchant_proposal_no,
            "application_id": application_id,
            "kind": kind,
            "amount": amount,
            "purpose": purpose,
            "payee": payee,
            "payment_code": payment_code,
            "currency": currency,
            "expires_in_s": expires_in_s,
        }
        made = self._transport.post(path_of("wallet_proposals"), body, **once)
        return cast("WalletProposal", made)

    def get(self, proposal_id: str) -> WalletProposal:
        """Return one proposal."""
        return cast("WalletProposal", self._transport.get(path_of("wallet_proposals", proposal_id)))

    def list(
        self,
        *,
        application_id: str | None = None,
        status: ProposalStatus | None = None,
        merchant_proposal_no: str | None = None,
        limit: int = 100,
    ) -> Iterator[WalletProposal]:
        """Yield proposals, newest first."""
        return self._transport.pages(
            path_of("wallet_proposals"),
            application_id=application_id,
            status=status,
            merchant_proposal_no=merchant_proposal_no,
            limit=limit,
        )

    def link(self, proposal_id: str, return_url: str) -> WalletLink:
        """Return a link to send the user to, who confirms there; an earlier one ends by it.

        Raises:
            Refused, Unanswered
        """
        path = path_of("wallet_proposals", proposal_id, "links")
        return cast("WalletLink", self._transport.post(path, {"return_url": return_url}))
