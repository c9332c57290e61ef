"""The same load on a TigerBeetle server, where its address is given and its client installed.

    pip install tigerbeetle
    python -m bench.ledger --tigerbeetle 127.0.0.1:3000

The server is not started here. It keeps no more than the transfers: no posting codes by name, no
business dates, no companions.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from bench.ledger.figures import Figures
from bench.ledger.workloads import FUNDED, Workload
from tongbao.kernel.clock import monotonic
from tongbao.kernel.ids import new_id

_LEDGER = 1
_BATCH_MAX = 8189
_BANK = 1 << 60


async def run(
    address: str, workload: Workload, *, accounts: int, size: int, seconds: float
) -> Figures:
    """Post batches of this size one after the other.

    Raises:
        ImportError: the client is not installed.
    """
    import tigerbeetle as tb  # noqa: PLC0415 - an optional arm

    size = min(size, _BATCH_MAX)
    base = new_id().int >> 64 << 64
    client = tb.ClientSync(cluster_id=0, replica_addresses=address)
    limited = tb.AccountFlags.DEBITS_MUST_NOT_EXCEED_CREDITS

    def account(number: int, flags: Any = 0) -> Any:
        return tb.Account(id=base + number + 1, ledger=_LEDGER, code=1, flags=flags)

    def transfer(debit: int, credit: int, amount: int) -> Any:
        return tb.Transfer(
            id=new_id().int,
            debit_account_id=base + debit + 1,
            credit_account_id=base + credit + 1,
            amount=amount,
            ledger=_LEDGER,
            code=1,
        )

    client.create_accounts([account(_BANK)])
    poor = accounts - int(accounts * workload.poor)
    for begin in range(0, accounts, _BATCH_MAX):
        numbers = range(begin, min(begin + _BATCH_MAX, accounts))
        client.create_accounts([account(number, limited) for number in numbers])
        funded = [transfer(_BANK, number, FUNDED) for number in numbers if number < poor]
        client.create_transfers(funded)
    rng = np.random.default_rng(1)
    latencies: list[float] = []
    posted = refused = 0
    begins = monotonic()
    while monotonic() - begins < seconds:
        drawn = workload.draw(rng, size, accounts)
        rows = zip(drawn.debit.tolist(), drawn.credit.tolist(), drawn.amount.tolist(), strict=True)
        made = [transfer(*each) for each in rows]
        started = monotonic()
        results = await asyncio.to_thread(client.create_transfers, made)
        latencies.append(monotonic() - started)
        posted += len(made)
        refused += sum(each.status != tb.CreateTransferStatus.CREATED for each in results)
    return Figures(posted, refused, sum(latencies), latencies)
