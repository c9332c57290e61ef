# ruff: noqa: ANN201, B008, FAST002, RUF012, TID251 - as its authors would have written it
"""The service a typical team writes: FastAPI, pydantic, SQLAlchemy's async ORM.

One transaction per payment with row locks on payer and merchant, in the order of their ids. It does
what the platform's route does: signature, nonce, idempotency, code, limit, balances, payment,
attempt, transfers, event. The platform's income from fees has no row of its own that everybody
would wait for; it is in the transfers.

    DSN=… uvicorn typical_service:app
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import JSON, ForeignKey, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TIMESTAMP
from usual_signature import fields_of, is_signed

FEE_ACCOUNT = uuid.UUID(int=1)
TIMES = TIMESTAMP(timezone=True)


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB().with_variant(JSON(), "sqlite"), datetime: TIMES}


class ApiKey(Base):
    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(primary_key=True)
    merchant_id: Mapped[uuid.UUID]
    secret: Mapped[str]
    revoked: Mapped[bool]


class Merchant(Base):
    __tablename__ = "merchant"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    state: Mapped[str]
    fee_ppm: Mapped[int]


class Account(Base):
    __tablename__ = "account"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    balance: Mapped[int]
    daily_limit: Mapped[int]
    spent: Mapped[int]
    spent_on: Mapped[date | None]


class PaymentCode(Base):
    __tablename__ = "payment_code"
    code: Mapped[str] = mapped_column(primary_key=True)
    wallet_id: Mapped[uuid.UUID]
    expires_at: Mapped[datetime]
    used_by: Mapped[uuid.UUID | None]


class ApiNonce(Base):
    __tablename__ = "api_nonce"
    key_id: Mapped[str] = mapped_column(primary_key=True)
    nonce: Mapped[str] = mapped_column(primary_key=True)
    kept_until: Mapped[datetime]


class IdempotencyKey(Base):
    __tablename__ = "idempotency_key"
    merchant_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[bytes]
    response: Mapped[str | None]
    created_at: Mapped[datetime]


class Payment(Base):
    __tablename__ = "payment"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    merchant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("merchant.id"))
    merchant_order_no: Mapped[str]
    amount: Mapped[int]
    currency: Mapped[str]
    subject: Mapped[str]
    state: Mapped[str]
    fee: Mapped[int]
    created_at: Mapped[datetime]


class Attempt(Base):
    __tablename__ = "attempt"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    payment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("payment.id"))
    payer: Mapped[uuid.UUID]
    state: Mapped[str]
    created_at: Mapped[datetime]


class Transfer(Base):
    __tablename__ = "transfer"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    payment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("payment.id"))
    debit_account: Mapped[uuid.UUID]
    credit_account: Mapped[uuid.UUID]
    amount: Mapped[int]
    created_at: Mapped[datetime]


class Event(Base):
    __tablename__ = "event"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    merchant_id: Mapped[uuid.UUID]
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


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


engine = create_async_engine(
    os.environ["DSN"].replace("postgresql://", "postgresql+asyncpg://"),
    pool_size=int(os.environ.get("POOL", "16")),
    max_overflow=0,
)
new_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def session_of_request():
    async with new_session() as session:
        yield session


async def key_of_request(
    request: Request, session: AsyncSession = Depends(session_of_request)
) -> ApiKey:
    fields = fields_of(request.headers["authorization"])
    key = await session.get(ApiKey, fields["key"])
    body = await request.body()
    if key is None or key.revoked or not is_signed(fields, key.secret, request.url.path, body):
        raise HTTPException(401, "not signed")
    now = datetime.now(UTC)
    session.add(
        ApiNonce(key_id=key.id, nonce=fields["nonce"], kept_until=now + timedelta(minutes=10))
    )
    try:
        await session.flush()
    except IntegrityError:
        raise HTTPException(401, "replayed") from None
    return key


@app.post("/v1/payments", status_code=201)
async def create(
    data: CreatePayment,
    request: Request,
    key: ApiKey = Depends(key_of_request),
    session: AsyncSession = Depends(session_of_request),
):
    now = datetime.now(UTC)
    body_hash = hashlib.sha256(await request.body()).digest()
    used = await session.get(IdempotencyKey, (key.merchant_id, request.headers["idempotency-key"]))
    if used is not None:
        if used.body_hash != body_hash:
            raise HTTPException(422, "key reused")
        return Response(used.response, 201, media_type="application/json")
    merchant = await session.get(Merchant, key.merchant_id)
    if merchant is None or merchant.state != "active":
        raise HTTPException(422, "merchant suspended")
    code = await session.get(PaymentCode, data.method.auth_code, with_for_update=True)
    if code is None or code.used_by is not None or code.expires_at <= now:
        raise HTTPException(422, "code used or expired")
    both = select(Account).where(Account.id.in_([code.wallet_id, merchant.id]))
    locked = (await session.scalars(both.order_by(Account.id).with_for_update())).all()
    accounts = {account.id: account for account in locked}
    wallet, payable = accounts[code.wallet_id], accounts[merchant.id]
    spent = wallet.spent if wallet.spent_on == now.date() else 0
    if wallet.balance < data.amount or spent + data.amount > wallet.daily_limit:
        raise HTTPException(422, "not enough money")
    fee = (data.amount * merchant.fee_ppm + 500_000) // 1_000_000
    payment = Payment(
        id=uuid.uuid4(),
        merchant_id=merchant.id,
        merchant_order_no=data.merchant_order_no,
        amount=data.amount,
        currency=data.currency,
        subject=data.subject,
        state="succeeded",
        fee=fee,
        created_at=now,
    )
    session.add(payment)
    await session.flush()
    wallet.balance -= data.amount
    wallet.spent, wallet.spent_on = spent + data.amount, now.date()
    payable.balance += data.amount - fee
    code.used_by = payment.id
    moves = [(wallet.id, payable.id, data.amount), (payable.id, FEE_ACCOUNT, fee)]
    session.add(
        Attempt(
            id=uuid.uuid4(),
            payment_id=payment.id,
            payer=wallet.id,
            state="succeeded",
            created_at=now,
        )
    )
    session.add_all(
        Transfer(
            id=uuid.uuid4(),
            payment_id=payment.id,
            debit_account=debit,
            credit_account=credit,
            amount=amount,
            created_at=now,
        )
        for debit, credit, amount in moves
        if amount
    )
    view = PaymentView(
        id=payment.id,
        status=payment.state,
        merchant_order_no=payment.merchant_order_no,
        amount=payment.amount,
        currency=payment.currency,
        subject=payment.subject,
        fee=fee,
        created_at=now,
    )
    answer = view.model_dump_json()
    session.add(
        Event(
            id=uuid.uuid4(),
            type="payment.succeeded",
            merchant_id=merchant.id,
            body=json.loads(answer),
            created_at=now,
        )
    )
    session.add(
        IdempotencyKey(
            merchant_id=merchant.id,
            key=request.headers["idempotency-key"],
            body_hash=body_hash,
            response=answer,
            created_at=now,
        )
    )
    await session.commit()
    return view
