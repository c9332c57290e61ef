"""What a shop sells, what an order is and allows, and every reason to refuse one. No I/O.

    placed ──its payment succeeds──► paid ──► fulfilled
      └──its time is over, or called off──► cancelled
    paid, fulfilled ──every fen went back──► refunded

An order is paid by one payment or never. It has no money of its own: whether it is paid is what its
checkout or payment says, and what it gives back is a refund of that payment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.ids import derived_id, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import AMOUNT_MAX, Money

LINES_MAX: Final = 50
QUANTITY_MAX: Final = 100_000
STOCK_MAX: Final = 1_000_000_000
EXPIRES_DEFAULT: Final = timedelta(minutes=30)
METADATA_KEY: Final = "order_id"
"""What a payment of an order says in its metadata; a hint where to look, and never believed."""
OUT_OF_STOCK: Final = "order.out_of_stock"
NUMBER_TAKEN: Final = "order.number_taken"


class ProductNotFound(NotFound):
    """The caller has no such product."""

    code = "product.not_found"
    advice = "List the products to find its id."
    advice_zh = "请通过商品列表查找正确的标识。"


class SkuNotFound(NotFound):
    """The caller has no such variant of a product."""

    code = "sku.not_found"
    advice = "Read the product to find the ids of its variants."
    advice_zh = "请通过商品详情查找正确的规格标识。"


class SkuCodeUsed(Conflict):
    """Another variant has this code."""

    code = "sku.code_used"
    advice = "Choose a code that none of your variants has."
    advice_zh = "规格编码已被使用，请更换编码。"


class StockNotCounted(Rejected):
    """This variant has no stock: there is always more of it."""

    code = "sku.not_counted"
    advice = "Make a variant with counted true to keep its stock."
    advice_zh = "该规格不计库存，请新建计库存的规格。"


class StockTooLow(Rejected):
    """More would be taken off the shelf than lies there."""

    code = "sku.stock_too_low"
    advice = "Read the stock; what is reserved belongs to orders."
    advice_zh = "库存不足，请先查询；已预占部分属于订单。"


class NotOnShelf(Rejected):
    """The product is not on sale at present."""

    code = "order.not_on_shelf"
    advice = "Put the product on the shelf, or leave it out of the order."
    advice_zh = "商品已下架，请上架后再下单或移除该商品。"


class OutOfStock(Rejected):
    """There is less of something than the order asks for."""

    code = OUT_OF_STOCK
    advice = "Read the stock and order less, under a new key."
    advice_zh = "库存不足，请减少数量后使用新的幂等键重新下单。"


class OrderCurrenciesDiffer(Rejected):
    """The lines of an order are priced in one currency."""

    code = "order.currencies_differ"
    advice = "Make an order for each currency."
    advice_zh = "同一订单只能包含一种币种，请按币种拆单。"


class OrderTooLarge(Invalid):
    """The lines together are more than the platform keeps in one figure."""

    code = "order.too_large"
    advice = "Order less, in several orders."
    advice_zh = "订单金额过大，请拆分下单。"


class OrderNotFound(NotFound):
    """The caller has no such order."""

    code = "order.not_found"
    advice = "Check the id, and that the API key is of the same merchant and mode."
    advice_zh = "请检查订单标识，并确认 API 密钥属于同一商户与模式。"


class ShopOrderNumberUsed(Conflict):
    """The order number belongs to another order, for ever."""

    code = "order.number_used"
    advice = "Use a new merchant_order_no, or repeat the first request unchanged."
    advice_zh = "请更换 merchant_order_no，或原样重复首次请求。"


class OrderNotPaid(Conflict):
    """Only a paid order can be fulfilled, reviewed or given back."""

    code = "order.not_paid"
    advice = "Wait for the payment; an unpaid order can be cancelled."
    advice_zh = "订单尚未支付；未支付的订单可以取消。"


class OrderNotPlaced(Conflict):
    """Only an order that nobody has paid can be cancelled."""

    code = "order.not_placed"
    advice = "Refund a paid order instead."
    advice_zh = "已支付的订单请发起退款。"


class RefundExceedsLine(Rejected):
    """More pieces would be given back than were bought."""

    code = "order.refund_exceeds_line"
    advice = "Ask for no more pieces than are left on the line."
    advice_zh = "退货数量超过该行可退数量。"


class Scene(StrEnum):
    """Where an order was made."""

    SHOP = "shop"
    TABLE = "table"
    COUNTER = "counter"


class OrderState(StrEnum):
    """Where an order stands."""

    PLACED = "placed"
    PAID = "paid"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"


class Product(Struct, frozen=True):
    """One row of the product table."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    name: str
    category: str
    description: str
    image_key: str | None
    on_shelf: bool
    created_at: datetime


class Sku(Struct, frozen=True):
    """One row of the variant table: ``received`` = ``available`` + ``reserved`` + ``sold``."""

    id: UUID
    product_id: UUID
    merchant_id: UUID
    mode: Mode
    code: str
    name: str
    price: int
    currency: str
    counted: bool
    received: int
    available: int
    reserved: int
    sold: int
    created_at: datetime


class OnSale(Struct, frozen=True):
    """A variant with what an order needs of its product."""

    id: UUID
    product_id: UUID
    product_name: str
    category: str
    code: str
    name: str
    price: int
    currency: str
    counted: bool
    available: int
    on_shelf: bool

    @property
    def title(self) -> str:
        """What a customer calls it."""
        return f"{self.product_name} {self.name}".strip()


class ShopOrder(Struct, frozen=True):
    """One row of the order table."""

    id: UUID
    merchant_id: UUID
    mode: Mode
    merchant_order_no: str
    request_hash: bytes
    scene: Scene
    state: OrderState
    currency: str
    total: int
    refunded: int
    returned: int
    tab_id: UUID | None
    payment_id: UUID | None
    subject: str
    return_url: str | None
    metadata: dict[str, str]
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    ended_at: datetime | None

    @property
    def money(self) -> Money:
        """What is to be paid."""
        return Money(self.total, self.currency)

    @property
    def checkout_id(self) -> UUID:
        """The checkout it is paid at, which has its id from the order before it is opened."""
        return derived_id(self.id, "checkout")

    @property
    def is_paid(self) -> bool:
        """Whether its payment came in, whatever became of the goods and the money since."""
        return self.paid_at is not None


class OrderLine(Struct, frozen=True):
    """One row of the line table."""

    order_id: UUID
    number: int
    sku_id: UUID | None
    code: str
    name: str
    price: int
    quantity: int
    amount: int
    refunded: int
    counted: bool


class LineAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """So many pieces of a variant."""

    sku_id: str
    quantity: Annotated[int, Meta(ge=1, le=QUANTITY_MAX)] = 1


class RefundedLine(Struct, frozen=True, forbid_unknown_fields=True):
    """So many pieces of a line."""

    number: Annotated[int, Meta(ge=1)]
    quantity: Annotated[int, Meta(ge=1, le=QUANTITY_MAX)]


class OrderRefundState(StrEnum):
    """Where the giving back of some of an order stands."""

    REQUESTED = "requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class OrderRefund(Struct, frozen=True):
    """One row of the refund table; ``refund_id`` is the refund of the order's payment."""

    id: UUID
    order_id: UUID
    merchant_id: UUID
    mode: Mode
    amount: int
    lines: list[RefundedLine]
    restock: bool
    reason: str
    state: OrderRefundState
    code: str | None
    refund_id: UUID | None
    created_at: datetime
    ended_at: datetime | None


class LineView(Struct, frozen=True):
    """A line of an order as the API shows it."""

    number: int
    code: str
    name: str
    price: int
    quantity: int
    amount: int
    refunded_quantity: int


class OrderView(Struct, frozen=True, omit_defaults=True):
    """An order as the API and the webhooks show it; ``url`` is where the customer pays it."""

    id: str
    object: Literal["order"]
    mode: Mode
    merchant_order_no: str
    scene: Scene
    status: OrderState
    amount: int
    currency: str
    amount_refunded: int
    subject: str
    created_at: datetime
    expires_at: datetime
    metadata: dict[str, str]
    lines: list[LineView] = []
    payment_id: str | UnsetType = UNSET
    tab_id: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    paid_at: datetime | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


class OrderRefundView(Struct, frozen=True, omit_defaults=True):
    """What is given back of an order, as the API and the webhooks show it."""

    id: str
    object: Literal["order_refund"]
    mode: Mode
    order_id: str
    amount: int
    lines: list[RefundedLine]
    restock: bool
    reason: str
    status: OrderRefundState
    created_at: datetime
    code: str | UnsetType = UNSET
    refund_id: str | UnsetType = UNSET
    ended_at: datetime | UnsetType = UNSET


def lines_of(order_id: UUID, wanted: Iterable[tuple[OnSale, int]]) -> list[OrderLine]:
    """Return the lines of an order at the prices of now.

    Raises:
        NotOnShelf, OrderCurrenciesDiffer, OrderTooLarge
    """
    lines: list[OrderLine] = []
    currencies: set[str] = set()
    for sku, quantity in wanted:
        if not sku.on_shelf:
            raise NotOnShelf(sku_id=show("sku", sku.id))
        currencies.add(sku.currency)
        amount = sku.price * quantity
        number = len(lines) + 1
        row = (order_id, number, sku.id, sku.code, sku.title, sku.price, quantity, amount)
        lines.append(OrderLine(*row, refunded=0, counted=sku.counted))
    if len(currencies) > 1:
        raise OrderCurrenciesDiffer
    total_of(lines)
    return lines


def total_of(lines: Sequence[OrderLine]) -> int:
    """Return what the lines come to.

    Raises:
        OrderTooLarge
    """
    total = sum(line.amount for line in lines)
    if total > AMOUNT_MAX:
        raise OrderTooLarge
    return total


def refund_of(lines: Sequence[OrderLine], pieces: Mapping[int, int]) -> int:
    """Return what giving back so many pieces of these lines comes to.

    Raises:
        RefundExceedsLine
    """
    by_number = {line.number: line for line in lines}
    amount = 0
    for number, quantity in pieces.items():
        line = by_number.get(number)
        if line is None or quantity > line.quantity - line.refunded:
            left = 0 if line is None else line.quantity - line.refunded
            raise RefundExceedsLine(line=number, left=left)
        amount += line.price * quantity
    return amount


def fingerprint(*meant: Any) -> bytes:
    """Return what makes two requests the same."""
    return sha256(msgspec.json.encode(meant, order="deterministic")).digest()


def view_order(
    order: ShopOrder, lines: Sequence[OrderLine] = (), url: str | None = None
) -> OrderView:
    """Return the order as the API shows it."""
    return OrderView(
        id=show("ord", order.id),
        object="order",
        mode=order.mode,
        merchant_order_no=order.merchant_order_no,
        scene=order.scene,
        status=order.state,
        amount=order.total,
        currency=order.currency,
        amount_refunded=order.returned,
        subject=order.subject,
        created_at=order.created_at,
        expires_at=order.expires_at,
        metadata=order.metadata,
        lines=[view_line(line) for line in lines],
        payment_id=show("pay", order.payment_id) if order.payment_id else UNSET,
        tab_id=show("tab", order.tab_id) if order.tab_id else UNSET,
        url=url or UNSET,
        paid_at=order.paid_at or UNSET,
        ended_at=order.ended_at or UNSET,
    )


def view_line(line: OrderLine) -> LineView:
    """Return a line as the API shows it."""
    return LineView(
        line.number,
        line.code,
        line.name,
        line.price,
        line.quantity,
        line.amount,
        line.refunded,
    )


def view_order_refund(refund: OrderRefund) -> OrderRefundView:
    """Return what is given back as the API shows it."""
    return OrderRefundView(
        id=show("ore", refund.id),
        object="order_refund",
        mode=refund.mode,
        order_id=show("ord", refund.order_id),
        amount=refund.amount,
        lines=refund.lines,
        restock=refund.restock,
        reason=refund.reason,
        status=refund.state,
        created_at=refund.created_at,
        code=refund.code or UNSET,
        refund_id=show("ref", refund.refund_id) if refund.refund_id else UNSET,
        ended_at=refund.ended_at or UNSET,
    )
