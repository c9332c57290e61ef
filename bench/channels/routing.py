"""How long a routing decision takes, beside a plain reading of the same rules in the same run.

    python -m bench.channels.routing [--rules 100] [--channels 20] [--payments 20000]

Both sides get the same payments in the same order, one after the other, and must choose the same
account. The goal is 50 µs at 100 rules and 20 channels. Nothing here is asserted about time: the
figures depend on the machine, and their ratio less.
"""

from __future__ import annotations

import argparse
import gc
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import thread_time_ns
from typing import Any
from uuid import UUID

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money, share_half_up
from tongbao.payments.routing.choosing import Standing, choose, rate_key
from tongbao.payments.routing.model import Asked, Gate, Offer, Price, Rate
from tongbao.payments.routing.rules import (
    DAYS,
    Rule,
    RuleFile,
    RuleTable,
    Terms,
    When,
    compile_rules,
)
from tongbao.rails.channels.contract.orders import PayMode

_SINCE = datetime(2026, 11, 23, tzinfo=UTC)


class World:
    """Rules, accounts, figures and payments, all drawn from one seed."""

    def __init__(self, rules: int, channels: int, payments: int) -> None:
        self.chance = random.Random(20261122)
        self.merchants = [new_id() for _ in range(50)]
        names = [f"channel_{number}" for number in range(channels)]
        self.offers = [
            Offer(new_id(), name, Price(2000 + 150 * at)) for at, name in enumerate(names)
        ]
        self.standings = {
            offer.account_id: Standing(
                Gate.UP,
                has_probes=False,
                rates={
                    rate_key(mode, ""): Rate(self.chance.randrange(700_000, 999_000), 200, 500)
                    for mode in (PayMode.QR, PayMode.H5)
                },
            )
            for offer in self.offers
        }
        self.rules = [self._rule(number, names) for number in range(rules)]
        self.table: RuleTable = compile_rules(
            RuleFile("bench", Mode.LIVE, self.rules, terms=Terms(explore_ppm=0))
        )
        self.payments = [self._payment() for _ in range(payments)]

    def _rule(self, number: int, names: Sequence[str]) -> Rule:
        draw = self.chance.random
        when = When(
            merchants=[show("mch", self.chance.choice(self.merchants))] if draw() < 0.4 else [],
            pay_modes=[self.chance.choice([PayMode.QR, PayMode.H5])] if draw() < 0.5 else [],
            currencies=["CNY"] if draw() < 0.5 else [],
            amount_from=(low := self.chance.randrange(1, 90_000)),
            amount_below=low + self.chance.randrange(100, 4_000),
            weekdays=self.chance.sample(DAYS, 2) if draw() < 0.3 else [],
            since="08:00" if (timed := draw() < 0.2) else None,
            until="20:00" if timed else None,
            metadata={"shop": str(number % 5)} if draw() < 0.1 else {},
        )
        return Rule(f"rule {number}", when, to=self.chance.sample(names, len(names)))

    def _payment(self) -> Asked:
        return Asked(
            payment_id=new_id(),
            book=1,
            merchant_id=self.chance.choice(self.merchants),
            mode=Mode.LIVE,
            pay_mode=self.chance.choice([PayMode.QR, PayMode.H5]),
            money=Money(self.chance.randrange(1, 100_000), "CNY"),
            at=_SINCE + timedelta(seconds=self.chance.randrange(7 * 24 * 3600)),
            metadata={"shop": str(self.chance.randrange(5))},
        )


def plainly(world: World, asked: Asked) -> UUID:
    """Read every rule word by word until one fits, and score every account it means."""
    rule = next((each for each in world.rules if fits(each.when, asked)), None)
    best: tuple[int, int, UUID] | None = None
    for offer in world.offers:
        if rule is not None and rule.to and offer.channel not in rule.to:
            continue
        rate = world.standings[offer.account_id].rates[rate_key(asked.pay_mode, "")]
        left = asked.money.amount - share_half_up(asked.money.amount, offer.price.rate_ppm)
        scored = (rate.success_ppm * left // 1_000_000, rate.success_ppm, offer.account_id)
        if best is None or scored[:2] > best[:2]:
            best = scored
    if best is None:
        raise ValueError("no account is left")
    return best[2]


def fits(when: When, asked: Asked) -> bool:
    """Return whether every condition holds, one after the other."""
    at = asked.at.astimezone(BUSINESS_ZONE)
    clock = f"{at.hour:02}:{at.minute:02}"
    amount = asked.money.amount
    return (
        (not when.merchants or show("mch", asked.merchant_id) in when.merchants)
        and (not when.pay_modes or asked.pay_mode in when.pay_modes)
        and (not when.currencies or asked.money.currency in when.currencies)
        and (when.amount_from is None or amount >= when.amount_from)
        and (when.amount_below is None or amount < when.amount_below)
        and (not when.weekdays or DAYS[at.weekday()] in when.weekdays)
        and (when.since is None or when.until is None or when.since <= clock < when.until)
        and all(asked.metadata.get(key) == value for key, value in when.metadata.items())
    )


def timed(decide: Callable[[Asked], Any], payments: Sequence[Asked]) -> tuple[list[Any], list[int]]:
    """Return what was decided and how many nanoseconds of a processor each decision took."""
    decided, took = [], []
    for asked in payments:
        began = thread_time_ns()
        found = decide(asked)
        took.append(thread_time_ns() - began)
        decided.append(found)
    return decided, took


def line(name: str, took: list[int]) -> str:
    """Return the figures of one side as people read them."""
    ordered = sorted(took)
    p50, p99 = (ordered[len(ordered) * share // 100] / 1000 for share in (50, 99))
    return f"{name:<10} p50 {p50:8.1f} µs   p99 {p99:8.1f} µs"


def main() -> None:
    """Run both sides and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--channels", type=int, default=20)
    parser.add_argument("--payments", type=int, default=20_000)
    options = parser.parse_args()
    world = World(options.rules, options.channels, options.payments)

    def ours(asked: Asked) -> UUID:
        decision = choose(asked, world.table, world.offers, world.standings, {})
        return decision.chosen.account_id

    # As in the server: what is there stays, and the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    warm = world.payments[:500]
    timed(ours, warm)
    timed(lambda asked: plainly(world, asked), warm)
    chosen, fast = timed(ours, world.payments)
    expected, slow = timed(lambda asked: plainly(world, asked), world.payments)
    if chosen != expected:
        raise SystemExit("the two sides do not choose alike")
    print(f"{options.rules} rules, {options.channels} channels, {options.payments} payments")
    print(line("compiled", fast))
    print(line("plain", slow))
    print(f"ratio of the medians {sorted(slow)[len(slow) // 2] / sorted(fast)[len(fast) // 2]:.1f}")


if __name__ == "__main__":
    main()
