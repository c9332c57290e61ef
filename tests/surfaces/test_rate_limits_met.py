"""Rate limits and quotas as a merchant's program meets them: at the routes as they are deployed."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.infra.signed_client import Reply, SignedClient
from tests.stage import Stage
from tongbao.infra.admission.rate_limits import RateLimit
from tongbao.infra.admission.rate_shares import set_rate_limit
from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode

SLOW = 1
"""Units a second: what flows in while a test asks is a unit or two, on a busy machine some."""


async def limited(stage: Stage, limit: RateLimit, *, by_key: bool = False) -> SignedClient:
    """A new shop, or its key alone, of which no process has a share yet."""
    shop = await stage.open_shop()
    subject = parse("key", shop.key_id) if by_key else shop.merchant.id
    async with stage.db.begin("operator") as tx:
        await set_rate_limit(tx, (subject, Mode.SANDBOX), limit, shop.key_id)
    return SignedClient(stage.app, shop.key_id, shop.secret.reveal())


def left(reply: Reply) -> int:
    found = re.match(r'"units";r=(\d+)', reply.headers["ratelimit"])
    assert found is not None
    return int(found[1])


async def test_a_dear_route_costs_what_it_declares(shared_stage: Stage) -> None:
    dear = [each for each in shared_stage.app.operations if each.access.cost > 1]
    assert dear, "a statement file is one"
    for operation in dear:
        client, cost = await limited(shared_stage, RateLimit(SLOW, 400)), operation.access.cost
        target = re.sub(r"\{\w+\}", "x", operation.path)
        replies = [await client.send(operation.method, target) for _ in range(4)]
        assert replies[0].headers["ratelimit-policy"] == '"units";q=400;w=400'
        spent = [left(one) - left(other) for one, other in pairwise(replies)]
        assert all(cost // 2 < each <= cost for each in spent), (target, spent)


async def test_whoever_asks_too_much_is_told_when_to_come_back_and_nobody_else_is(
    shared_stage: Stage,
) -> None:
    for by_key in (False, True):
        client = await limited(shared_stage, RateLimit(SLOW, 5), by_key=by_key)
        replies = [await client.get("/v1/payments") for _ in range(30)]
        refused = [each for each in replies if each.status == 429]
        assert len(refused) >= 5
        assert {each.code for each in refused} == {"request.rate_limited"}
        assert all(1 <= int(each.headers["retry-after"]) <= 5 for each in refused)
        assert replies[0].status == 200
    calm = SignedClient(
        shared_stage.app, shared_stage.shop.key_id, shared_stage.shop.secret.reveal()
    )
    assert (await calm.get("/v1/payments")).status == 200


async def test_a_quota_ends_with_the_day_and_not_before(shared_stage: Stage) -> None:
    client = await limited(shared_stage, RateLimit(1000, 1000, units_per_day=7))
    replies = [await client.get("/v1/payments") for _ in range(10)]
    assert [each.status for each in replies] == [200] * 7 + [429] * 3
    assert int(replies[-1].headers["retry-after"]) >= 1
