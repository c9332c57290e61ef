"""Play the day from opening to proof and say how it went."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tongbao.kernel.clock import monotonic
from tongbao.surfaces.demo import closing
from tongbao.surfaces.demo.giving_back import give_back
from tongbao.surfaces.demo.misbehaviour import misbehave
from tongbao.surfaces.demo.programme import Programme
from tongbao.surfaces.demo.trading import stand_at_the_counter, trade

Act = Callable[[Programme], Awaitable[None]]


async def play(programme: Programme, *, customers: int, seed: int) -> bool:
    """Play every act in order; True when all that happened was expected."""
    acts: list[tuple[str, Act]] = [
        (f"{customers} customers come", lambda p: trade(p, customers, seed)),
        ("The channels misbehave on purpose", misbehave),
        ("Refunds", give_back),
        ("A terminal stands on the counter", stand_at_the_counter),
        *_CLOSING,
    ]
    started = monotonic()
    for number, (title, act) in enumerate(acts, start=1):
        programme.console.print(f"\n[bold]{number}. {title}[/]")
        began = monotonic()
        await act(programme)
        programme.console.print(f"   [dim]{monotonic() - began:.1f} s[/]")
    programme.console.print()
    programme.console.print(programme.summary())
    right = all(mark.is_right for mark in programme.marks)
    verdict = "[green]All as expected[/]" if right else "[red]Not all as expected[/]"
    programme.console.print(
        f"{verdict}: {len(programme.marks)} checks in {monotonic() - started:.0f} s"
    )
    return right


_CLOSING: Final[tuple[tuple[str, Act], ...]] = (
    ("The day is closed: bills against payments and ledger", closing.reconcile),
    ("The merchant is settled and paid out", closing.settle),
    ("Every webhook, once in effect", closing.check_webhooks),
    ("The ledger proves itself", closing.prove),
)
