# ruff: noqa: A001, ANN201, TID251 - as its authors would have written it
"""The service a careful team writes: FastAPI over asyncpg's prepared statements, no ORM.

One transaction per payment, as few statements as the work allows, keys and merchants remembered.
It does what the typical one does, under the same locks.

    DSN=… uvicorn careful_service:app
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from usual_signature import fields_of, is_signed

FEE_ACCOUNT = uuid.UUID(int=1)
REMEMBERED_S = 1.0

KEY = """select k.secret, k.revoked, k.merchant_id, m.state, m.fee_ppm
           from api_key k join merchant m on m.id = k.merchant_id where k.id = $1"""
TAKE = """
    with fresh as (
        insert into api_nonce (key_id, nonce, kept_until) values ($1, $2, $3)
        on conflict do nothing returning 1
    ), taken as (
        insert into idempotency_key (merchant_id, key, body_hash, created_at)
        values ($4, $5, $6, $7) on conflict do nothing returning 1
    )
    select (select count(*) from fresh) as fresh, (select count(*) from taken) as taken"""
EARLIER = "select body_hash, response from idempotency_key where merchant_id = $1 and key = $2"
USE_CODE = """update payment_code set used_by = $2
               where code = $1 and used_by is null and expires_at > $3 returning wallet_id"""
LOCK = "select id from account where id = any($1::uuid[]) order by id for update"
PAY = """update account
            set balance = balance - $2, spent_on = $3,
                spent = case when spent_on = $3 then spent else 0 end + $2
          where id = $1 and balance >= $2
            and case when spent_on = $3 then spent else 0 end + $2 <= daily_limit"""
RECEIVE = "update account set balance = balance + $2 where id = $1"
RECORD = """
    with paid as (
        insert into payment (id, merchant_id, merchant_order_no, amount, currency, subject, state,
                             fee, created_at)
        values ($1, $2, $3, $4, $5, $6, 'succeeded', $7, $8)
    ), tried as (
        insert into attempt (id, payment_id, payer, state, created_at)
        values ($9, $1, $10, 'succeeded', $8)
    ), moved as (
        insert into transfer (id, payment_id, debit_account, credit_account, amount, created_at)
        select m.id, $1, m.debit, m.credit, m.amount, $8
          from unnest($11::uuid[], $12::uuid[], $13::uuid[], $14::bigint[])
            as m (id, debit, credit, amount)
    ), told as (
        insert into event (id, type, merchant_id, body, created_at)
        values ($15, 'payment.succeeded', $2, $16::text::jsonb, $8)
    )
    update idempotency_key set response = $16 where merchant_id = $2 and key = $17"""


class Method(BaseModel):
    mode: str
    auth_code: str = Field(min_length=16, max_length=24, pattern=r"^[0-9]+$")


class CreatePayment(BaseModel):
    merchant_order_no: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_\-|*@.]+$")
    amount: int = Field(gt=0)
    subject: str = Field(min_length=1, max_length=120)
    method: Method
    currency: str = Field(default="CNY", min_length=3, max_length=3)


class PaymentView(BaseModel):
    id: uuid.UUID
    status: str
    merchant_order_no: str
    amount: int
    currency: str
    subject: str
    fee: int
    created_at: datetime


@asynccontextmanager
async def lifespan(app: FastAPI):
    size = int(os.environ.get("POOL", "16"))
    app.state.pool = await asyncpg.create_pool(os.environ["DSN"], min_size=size, max_size=size)
    app.state.keys = {}
    yield
    await app.state.pool.close()


app = FastAPI(lifespan=lifespan)


async def key_of(key_id: str) -> Any:
    known = app.state.keys.get(key_id)
    if known is None or known[0] < time.monotonic():
        row = await app.state.pool.fetchrow(KEY, key_id)
        known = app.state.keys[key_id] = (time.monotonic() + REMEMBERED_S, row)
    return known[1]


@app.post("/v1/payments", status_code=201)
async def create(data: CreatePayment, request: Request) -> Response:
    body = await request.body()
    fields = fields_of(request.headers["authorization"])
    key = await key_of(fields["key"])
    if key is None or key["revoked"] or not is_signed(fields, key["secret"], "/v1/payments", body):
        raise HTTPException(401, "not signed")
    if key["state"] != "active":
        raise HTTPException(422, "merchant suspended")
    async with app.state.pool.acquire() as connection, connection.transaction():
        return await pay(connection, data, request, body, fields, key)


async def pay(
    on: Any, data: CreatePayment, request: Request, body: bytes, fields: dict[str, str], key: Any
) -> Response:
    now, payment_id = datetime.now(UTC), uuid.uuid4()
    merchant, use = key["merchant_id"], request.headers["idempotency-key"]
    body_hash = hashlib.sha256(body).digest()
    kept_until = now + timedelta(minutes=10)
    took = await on.fetchrow(
        TAKE, fields["key"], fields["nonce"], kept_until, merchant, use, body_hash, now
    )
    if not took["fresh"]:
        raise HTTPException(401, "replayed")
    if not took["taken"]:
        earlier = await on.fetchrow(EARLIER, merchant, use)
        if earlier["body_hash"] != body_hash:
            raise HTTPException(422, "key reused")
        return Response(earlier["response"], 201, media_type="application/json")
    wallet = await on.fetchval(USE_CODE, data.method.auth_code, payment_id, now)
    if wallet is None:
        raise HTTPException(422, "code used or expired")
    await on.fetch(LOCK, [wallet, merchant])
    fee = (data.amount * key["fee_ppm"] + 500_000) // 1_000_000
    if await on.execute(PAY, wallet, data.amount, now.date()) == "UPDATE 0":
        raise HTTPException(422, "not enough money")
    await on.execute(RECEIVE, merchant, data.amount - fee)
    view = PaymentView(
        id=payment_id,
        status="succeeded",
        merchant_order_no=data.merchant_order_no,
        amount=data.amount,
        currency=data.currency,
        subject=data.subject,
        fee=fee,
        created_at=now,
    )
    answer = view.model_dump_json()
    moves = [(wallet, merchant, data.amount), (merchant, FEE_ACCOUNT, fee)]
    moves = [move for move in moves if move[2]]
    debits, credits, amounts = (list(column) for column in zip(*moves, strict=True))
    await on.execute(
        RECORD,
        payment_id,
        merchant,
        data.merchant_order_no,
        data.amount,
        data.currency,
        data.subject,
        fee,
        now,
        uuid.uuid4(),
        wallet,
        [uuid.uuid4() for _ in moves],
        debits,
        credits,
        amounts,
        uuid.uuid4(),
        answer,
        use,
    )
    return Response(answer, 201, media_type="application/json")
