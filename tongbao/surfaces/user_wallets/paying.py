"""Pay merchants' codes out of people's accounts, for whoever carries out what they agreed to."""

from __future__ import annotations

from tongbao.infra.web.caller import Caller
from tongbao.kernel.money import Money
from tongbao.parties.e_accounts.model import EAccount
from tongbao.parties.e_accounts.orders import Confirms, Teller
from tongbao.parties.user_wallets.model import ProposalInvalid
from tongbao.parties.user_wallets.proposals import Carrier
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.e_account_payments import paying
from tongbao.payments.own_wallet.confirming import code_scanned


def carrier_of(flow: Flow, teller: Teller) -> Carrier:
    """Return what carries out proposals: orders by the teller, codes by the payments' own flow."""

    async def pay(account: EAccount, code: str, level: int, confirmed: Confirms) -> None:
        await paying.pay(flow, account, code, level=level, confirmed=confirmed)

    return Carrier(teller, pay)


async def check_code(flow: Flow, caller: Caller, code: str, money: Money) -> None:
    """Raise unless a code is of a payment of the caller's own, of exactly this amount.

    Raises:
        WalletQrUnknown, WalletQrPaid, WalletQrEnded, ProposalInvalid
    """
    scanned = await code_scanned(flow, caller.mode, code)
    asked = Money(scanned.payment.amount, scanned.payment.currency)
    if scanned.payment.merchant_id != caller.merchant_id or asked != money:
        raise ProposalInvalid(param="$.payment_code")
    scanned.check_payable(flow.db.clock.now())
