"""Posting rules: what each fact debits and credits, and which tables do not load."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from tongbao.kernel.ids import derived_id
from tongbao.kernel.money import CurrencyMismatch, Money
from tongbao.ledger.model import AccountKey, TransferKind
from tongbao.ledger.rules.chart import CHART, OwnerKind
from tongbao.ledger.rules.posting import (
    RULES,
    FactsDiffer,
    RuleInvalid,
    load_rules,
    preview,
    transfer_id,
    transfers,
)

REF = UUID(int=7)
OWNER = UUID(int=8)
OWNED = {
    kind.name: AccountKey(kind.name, "CNY", OWNER)
    for kind in CHART.values()
    if kind.owner is not OwnerKind.HOUSE
}
ROLES = {
    "way": OWNED["wallet"],
    "home": AccountKey("fee_income", "CNY"),
    "from": AccountKey("bank", "CNY"),
    "to": AccountKey("suspense", "CNY"),
    "payer": OWNED["wallet"],
    "payee": OWNED["merchant_payable"],
    "funder": OWNED["merchant_payable"],
    "sender": OWNED["wallet"],
    "giving_wallet": OWNED["wallet"],
    "getting_wallet": AccountKey("wallet", "CNY", UUID(int=9)),
    "sending_account": OWNED["e_account"],
    "receiving_account": AccountKey("e_account", "CNY", UUID(int=9)),
    "giver": OWNED["merchant_payable"],
    "receiver": OWNED["wallet"],
}


def cny(amount):
    return Money(amount, "CNY")


def movements(rule, accounts=None, **amounts):
    return [
        (
            transfer.kind.name.lower(),
            transfer.debit and transfer.debit.kind,
            transfer.credit and transfer.credit.kind,
            transfer.amount,
        )
        for transfer in transfers(
            rule,
            reference=REF,
            accounts=OWNED | ROLES if accounts is None else accounts,
            amounts={name: cny(amount) for name, amount in amounts.items()},
        )
    ]


RECEIVABLE, PAYABLE, DUE = "channel_receivable", "merchant_payable", "settlement_due"


@pytest.mark.parametrize(
    ("rule", "amounts", "expected"),
    [
        (
            "payment.captured",
            {"gross": 1000, "fee": 6},
            [("single", RECEIVABLE, PAYABLE, 1000), ("single", PAYABLE, "fee_income", 6)],
        ),
        ("payment.captured", {"gross": 1000, "fee": 0}, [("single", RECEIVABLE, PAYABLE, 1000)]),
        (
            "refund.held",
            {"gross": 300, "fee_back": 2},
            [("single", "fee_income", PAYABLE, 2), ("pending", PAYABLE, RECEIVABLE, 300)],
        ),
        ("refund.held", {"gross": 300, "fee_back": 0}, [("pending", PAYABLE, RECEIVABLE, 300)]),
        ("refund.succeeded", {}, [("post", None, None, None)]),
        (
            "refund.failed",
            {"fee_back": 2},
            [("void", None, None, None), ("single", PAYABLE, "fee_income", 2)],
        ),
        (
            "settlement.closed",
            {"net": 5, "reserve": 2, "quick_fee": 1},
            [
                ("single", PAYABLE, DUE, 5),
                ("single", PAYABLE, "merchant_reserve", 2),
                ("single", PAYABLE, "fee_income", 1),
            ],
        ),
        ("settlement.closed", {"net": 0, "reserve": 0, "quick_fee": 0}, []),
        (
            "settlement.reserve_released",
            {"amount": 5},
            [("single", "merchant_reserve", PAYABLE, 5)],
        ),
        ("payout.paid", {"amount": 5}, [("single", DUE, "bank", 5)]),
        ("payout.failed", {"amount": 5}, [("single", DUE, PAYABLE, 5)]),
        ("payout.returned", {"amount": 5}, [("single", "bank", PAYABLE, 5)]),
        ("transfer.held", {"amount": 5}, [("pending", PAYABLE, "wallet", 5)]),
        ("transfer.succeeded", {}, [("post", None, None, None)]),
        ("transfer.failed", {}, [("void", None, None, None)]),
        ("transfer.to_wallet", {"amount": 5}, [("single", PAYABLE, "wallet", 5)]),
        ("transfer.returned", {"amount": 5}, [("single", "wallet", PAYABLE, 5)]),
        ("channel.fee", {"fee": 5}, [("single", "channel_cost", RECEIVABLE, 5)]),
        ("channel.fee_returned", {"fee": 5}, [("single", RECEIVABLE, "channel_cost", 5)]),
        ("channel.settled", {"amount": 5}, [("single", "bank", RECEIVABLE, 5)]),
        ("late.captured", {"gross": 5, "fee": 1}, [("single", RECEIVABLE, "suspense", 5)]),
        ("late.refunded", {"gross": 5}, [("single", "suspense", RECEIVABLE, 5)]),
        ("subsidy.funded", {"amount": 5}, [("single", PAYABLE, "subsidy", 5)]),
        ("subsidy.paid", {"amount": 5}, [("single", "subsidy", PAYABLE, 5)]),
        ("subsidy.returned", {"amount": 5}, [("single", "subsidy", PAYABLE, 5)]),
        ("red_packet.funded", {"amount": 5}, [("single", "wallet", "subsidy", 5)]),
        ("red_packet.grabbed", {"amount": 5}, [("single", "subsidy", "wallet", 5)]),
        ("red_packet.returned", {"amount": 5}, [("single", "subsidy", "wallet", 5)]),
        ("cross_book.out", {"amount": 5}, [("single", "wallet", "in_transit_out", 5)]),
        ("cross_book.in", {"amount": 5}, [("single", "in_transit_in", PAYABLE, 5)]),
        ("cross_book.returned", {"amount": 5}, [("single", "in_transit_out", "wallet", 5)]),
        ("cross_book.suspended", {"amount": 5}, [("single", "in_transit_out", "suspense", 5)]),
        ("cross_book.held", {"amount": 5}, [("pending", "wallet", "in_transit_out", 5)]),
        ("cross_book.sent", {}, [("post", None, None, None)]),
        ("cross_book.released", {}, [("void", None, None, None)]),
    ],
)
def test_each_fact_moves_what_the_rule_says(rule, amounts, expected):
    assert movements(rule, **amounts) == expected


def test_a_payment_from_the_own_wallet_and_its_refund_meet_the_wallet():
    accounts = {"wallet": OWNED["wallet"], PAYABLE: OWNED[PAYABLE]}
    assert movements("wallet.topped_up", accounts, amount=9) == [("single", "bank", "wallet", 9)]
    assert movements("payment.captured_by_wallet", accounts, gross=9, fee=1) == [
        ("single", "wallet", PAYABLE, 9),
        ("single", PAYABLE, "fee_income", 1),
    ]
    assert movements("refund.by_wallet", accounts, gross=9, fee_back=1) == [
        ("single", "fee_income", PAYABLE, 1),
        ("single", PAYABLE, "wallet", 9),
    ]


def test_an_exchange_has_a_leg_in_each_currency_through_the_houses_positions():
    dollars = AccountKey("wallet", "USD", OWNER)
    legs = transfers(
        "exchange.dealt",
        reference=REF,
        accounts={"giving_wallet": OWNED["wallet"], "getting_wallet": dollars},
        amounts={"given": cny(720), "got": Money(100, "USD"), "fee": cny(0)},
    )
    assert [(leg.debit, leg.credit, leg.amount) for leg in legs] == [
        (OWNED["wallet"], AccountKey("exchange", "CNY"), 720),
        (AccountKey("exchange", "USD"), dollars, 100),
    ]


def test_an_exchange_whose_wallets_are_the_wrong_way_round_is_a_bug():
    dollars = AccountKey("wallet", "USD", OWNER)
    with pytest.raises(CurrencyMismatch):
        transfers(
            "exchange.dealt",
            reference=REF,
            accounts={"giving_wallet": dollars, "getting_wallet": OWNED["wallet"]},
            amounts={"given": cny(720), "got": Money(100, "USD"), "fee": cny(0)},
        )


def test_an_account_of_any_kind_is_never_guessed():
    with pytest.raises(FactsDiffer):
        movements("cross_book.out", OWNED, amount=5)


def test_ids_derive_from_the_reference_so_that_a_repeat_is_the_same_transfer():
    facts = {"reference": REF, "accounts": OWNED, "amounts": {"gross": cny(9), "fee": cny(1)}}
    first, again = transfers("payment.captured", **facts), transfers("payment.captured", **facts)
    assert first == again
    assert [line.id for line in first] == [
        derived_id(REF, "payment.captured/gross"),
        derived_id(REF, "payment.captured/fee"),
    ]
    assert {line.reference for line in first} == {REF}
    assert [line.code for line in first] == ["payment.captured/gross", "payment.captured/fee"]


def test_the_end_of_a_hold_names_what_the_held_rule_made():
    expires_at = datetime(2026, 5, 1, tzinfo=UTC)
    facts = {"reference": REF, "accounts": OWNED}
    amounts = {"gross": cny(9), "fee_back": cny(1)}
    _, held = transfers("refund.held", amounts=amounts, expires_at=expires_at, **facts)
    [posted] = transfers("refund.succeeded", amounts={}, expires_at=expires_at, **facts)
    voided, _ = transfers("refund.failed", amounts=amounts, **facts)
    assert held.id == posted.pending_id == voided.pending_id
    assert held.id == transfer_id(REF, "refund.held", "gross")
    assert (held.expires_at, posted.expires_at) == (expires_at, None)
    assert len({held.id, posted.id, voided.id}) == 3


@pytest.mark.parametrize(
    ("rule", "accounts", "amounts"),
    [
        ("payment.imagined", OWNED, {}),
        ("payment.captured", OWNED, {"gross": cny(1)}),
        ("payment.captured", OWNED, {"gross": cny(-1), "fee": cny(0)}),
        ("payment.captured", {RECEIVABLE: OWNED[RECEIVABLE]}, {"gross": cny(2), "fee": cny(0)}),
        ("payout.failed", {PAYABLE: OWNED[PAYABLE]}, {"amount": cny(1)}),
        ("payout.paid", {DUE: OWNED["wallet"]}, {"amount": cny(1)}),
    ],
)
def test_facts_that_do_not_fit_the_rule_are_a_bug_of_the_caller(rule, accounts, amounts):
    with pytest.raises(FactsDiffer):
        transfers(rule, reference=REF, accounts=accounts, amounts=amounts)


def test_an_account_in_another_currency_than_the_amount_is_a_bug():
    with pytest.raises(CurrencyMismatch):
        transfers("payout.paid", reference=REF, accounts=OWNED, amounts={"amount": Money(1, "USD")})


def test_a_preview_says_in_words_what_would_be_posted():
    shown = preview(
        "payment.captured",
        reference=REF,
        accounts=OWNED,
        amounts={"gross": cny(1000), "fee": cny(6)},
    )
    assert shown.zh == "渠道代收入账"
    gross, fee = shown.lines
    assert (gross.amount, gross.debit, gross.credit_zh) == (
        cny(1000),
        OWNED[RECEIVABLE],
        "应付商户款",
    )
    assert (fee.leg, fee.credit, fee.credit_en) == (
        "fee",
        AccountKey("fee_income", "CNY"),
        "Fees earned",
    )
    amounts = {"fee_back": cny(0)}
    [released] = preview("refund.failed", reference=REF, accounts={}, amounts=amounts).lines
    assert (released.kind, released.amount, released.debit) == (TransferKind.VOID, None, None)


def test_every_rule_posts_something_and_speaks_both_languages():
    names = ("gross", "fee", "fee_back", "net", "amount", "given", "got", "reserve", "quick_fee")
    names += ("taken", "owed", "fee_owed", "at_scheme", "not_at_scheme", "share")
    amounts = {name: cny(5) for name in names}
    for name in RULES:
        assert transfers(name, reference=REF, accounts=OWNED | ROLES, amounts=amounts)
        assert RULES[name].en
        assert RULES[name].zh


def table(leg, names='en = "Fact"\nzh = "事实"'):
    return f'["some.fact"]\n{names}\nlegs = [{leg}]'


GOOD = '{ name = "a", kind = "single", debit = "bank", credit = "suspense", amount = "x" }'
ROLE = (
    '{ name = "a", kind = "single", debit = "any", debit_as = "x", credit = "bank", amount = "x" }'
)
PAIR = ROLE.replace('"bank"', '"any", credit_as = "y"')
HOLD = '{ name = "h", kind = "pending", debit = "bank", credit = "suspense", amount = "x" }'


def test_a_sound_table_loads():
    assert load_rules(table(GOOD))
    assert load_rules(table(ROLE))
    assert load_rules(table(PAIR))
    assert load_rules(table(f'{HOLD}, {{ name = "p", kind = "post", ends = "some.fact/h" }}'))


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        table(""),
        table(GOOD, names='en = "Fact"\nzh = ""'),
        table(f"{GOOD}, {GOOD}"),
        table(GOOD.replace('"bank"', '"gold"')),
        table(GOOD.replace('"bank"', '["bank"]')),
        table(GOOD.replace('"bank"', '"suspense"')),
        table(GOOD.replace('debit = "bank", ', "")),
        table(GOOD.replace(', amount = "x"', "")),
        table(GOOD.replace('"single"', '"sideways"')),
        table(GOOD.replace('"single"', '"expire"')),
        table(GOOD.replace("amount", "amuont")),
        table(ROLE.replace('debit_as = "x", ', "")),
        table(ROLE.replace('debit_as = "x"', 'debit_as = "wallet"')),
        table(ROLE.replace('debit_as = "x"', 'debit_as = ""')),
        table(PAIR.replace('"y"', '"x"')),
        table(f'{HOLD}, {{ name = "p", kind = "post", ends = "some.fact/h", debit_as = "x" }}'),
        table(GOOD.replace("}", ', ends = "some.fact/a" }')),
        table('{ name = "p", kind = "post", ends = "some.fact/a" }'),
        table(f'{HOLD}, {{ name = "v", kind = "void", ends = "some.fact/h", amount = "x" }}'),
        table(f'{HOLD}, {{ name = "p", kind = "post", ends = "some.fact/h", debit = "bank" }}'),
    ],
)
def test_a_table_that_contradicts_itself_does_not_load(text):
    with pytest.raises(RuleInvalid):
        load_rules(text)
