"""The SQL of the shop and its tables; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.products.shop.model import (
    OnSale,
    OrderLine,
    OrderRefund,
    Product,
    ShopOrder,
    Sku,
)

_PRODUCT: Final = (
    "id, merchant_id, mode, name, category, description, image_key, on_shelf, created_at"
)
_SKU: Final = """id, product_id, merchant_id, mode, code, name, price, currency, counted, received,
    available, reserved, sold, created_at"""
_ORDER: Final = """id, merchant_id, mode, merchant_order_no, request_hash, scene, state, currency,
    total, refunded, returned, tab_id, payment_id, subject, return_url, metadata, created_at,
    expires_at, paid_at, ended_at"""
_LINE: Final = "order_id, number, sku_id, code, name, price, quantity, amount, refunded, counted"
_ON_SALE: Final = """s.id, s.product_id, p.name as product_name, p.category, s.code, s.name,
    s.price, s.currency, s.counted, s.available, p.on_shelf"""

# The catalogue

INSERT_PRODUCT: Final = Query(
    Product,
    f"""insert into product ({_PRODUCT}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        returning {_PRODUCT}""",
)
CHANGE_PRODUCT: Final = Query(
    Product,
    f"""update product
           set name = coalesce($4, name), category = coalesce($5, category),
               description = coalesce($6, description), image_key = coalesce($7, image_key),
               on_shelf = coalesce($8, on_shelf)
         where id = $1 and merchant_id = $2 and mode = $3
        returning {_PRODUCT}""",
)
FIND_PRODUCT: Final = Query(
    Product, f"select {_PRODUCT} from product where id = $1 and merchant_id = $2 and mode = $3"
)
LIST_PRODUCTS: Final = Query(
    Product,
    f"""select {_PRODUCT} from product
         where merchant_id = $1 and mode = $2 and ($3::text is null or category = $3)
           and ($4::boolean is null or on_shelf = $4) and ($5::uuid is null or id < $5)
         order by id desc limit $6""",
)
INSERT_SKU: Final = Query(
    Sku,
    f"""insert into sku ({_SKU})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, 0, 0, $11)
        on conflict (merchant_id, mode, code) do nothing
        returning {_SKU}""",
)
CHANGE_PRICE: Final = Query(
    Sku,
    f"""update sku set price = $4 where id = $1 and merchant_id = $2 and mode = $3
        returning {_SKU}""",
)
FIND_SKU: Final = Query(
    Sku, f"select {_SKU} from sku where id = $1 and merchant_id = $2 and mode = $3"
)
SKUS_OF: Final = Query(
    Sku, f"select {_SKU} from sku where product_id = any($1::uuid[]) order by product_id, id"
)
ON_SALE: Final = Query(
    OnSale,
    f"""select {_ON_SALE} from sku s join product p on p.id = s.product_id
         where s.id = any($1::uuid[]) and s.merchant_id = $2 and s.mode = $3""",
)
MENU: Final = Query(
    OnSale,
    f"""select {_ON_SALE} from sku s join product p on p.id = s.product_id
         where s.merchant_id = $1 and s.mode = $2 and p.on_shelf
         order by p.category, p.id, s.id limit $3""",
)
ADJUST: Final = Query(
    Sku,
    f"""update sku set received = received + $4, available = available + $4
         where id = $1 and merchant_id = $2 and mode = $3 and counted and available + $4 >= 0
        returning {_SKU}""",
)

# Stock. Of a set the pieces of one variant are added up first, for a statement changes a row once
# only, and rows are locked in the order of their ids; the answer has a row for every one counted.

RESERVE: Final = Statement(
    """update sku set available = available - $2, reserved = reserved + $2
        where id = $1 and counted and available >= $2""",
    many="""
    with asked as materialized (
        select each.id, each.quantity from unnest($1::uuid[], $2::bigint[]) as each (id, quantity)
    ), summed as materialized (
        select asked.id, sum(asked.quantity)::bigint as quantity, count(*) as times
          from asked group by asked.id
    ), locked as materialized (
        select sku.id from sku
         where sku.id in (select summed.id from summed) order by sku.id for no key update
    ), reserved as (
        update sku set available = sku.available - summed.quantity,
                       reserved = sku.reserved + summed.quantity
          from summed join locked on locked.id = summed.id
         where sku.id = summed.id and sku.counted and sku.available >= summed.quantity
        returning summed.times
    )
    select each.number from reserved, generate_series(1, reserved.times) as each (number)""",
)
_OF_ORDER: Final = """
    with asked as materialized (
        select order_line.sku_id as id, sum(order_line.quantity)::bigint as quantity
          from order_line where order_line.order_id = $1 and order_line.counted
         group by order_line.sku_id
    ), locked as materialized (
        select sku.id from sku where sku.id in (select asked.id from asked)
         order by sku.id for no key update
    )
    update sku set reserved = sku.reserved - asked.quantity,"""
SELL: Final = Statement(
    f"""{_OF_ORDER} sold = sku.sold + asked.quantity
      from asked join locked on locked.id = asked.id where sku.id = asked.id"""
)
RELEASE: Final = Statement(
    f"""{_OF_ORDER} available = sku.available + asked.quantity
      from asked join locked on locked.id = asked.id where sku.id = asked.id"""
)
RESTOCK: Final = Statement(
    """update sku set sold = sold - $2, available = available + $2 where id = $1 and counted"""
)
LET_GO: Final = Statement(
    "update sku set reserved = reserved - $2, available = available + $2 where id = $1 and counted"
)

# Orders

INSERT_ORDER: Final = Statement(
    f"""insert into shop_order ({_ORDER})
        values ($1, $2, $3, $4, $5, $6, 'placed', $7, $8, 0, 0, $9, null, $10, $11,
                $12::text::jsonb, $13, $14, null, null)
        on conflict (merchant_order_no, merchant_id, mode) do nothing""",
    many="""insert into shop_order (id, merchant_id, mode, merchant_order_no, request_hash, scene,
               state, currency, total, refunded, returned, tab_id, payment_id, subject, return_url,
               metadata, created_at, expires_at, paid_at, ended_at)
        select asked.id, asked.merchant_id, asked.mode, asked.number, asked.hash, asked.scene,
               'placed', asked.currency, asked.total, 0, 0, asked.tab_id, null, asked.subject,
               asked.return_url, asked.metadata::jsonb, asked.created_at, asked.expires_at, null,
               null
          from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::text[],
                      $7::text[], $8::bigint[], $9::uuid[], $10::text[], $11::text[], $12::text[],
                      $13::timestamptz[], $14::timestamptz[])
            as asked (id, merchant_id, mode, number, hash, scene, currency, total, tab_id, subject,
                      return_url, metadata, created_at, expires_at)
            on conflict (merchant_order_no, merchant_id, mode) do nothing""",
)
INSERT_LINE: Final = Statement(
    f"""insert into order_line ({_LINE}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)""",
    many=f"""insert into order_line ({_LINE})
        select each.order_id, each.number, each.sku_id, each.code, each.name, each.price,
               each.quantity, each.amount, each.refunded, each.counted
          from unnest($1::uuid[], $2::int[], $3::uuid[], $4::text[], $5::text[], $6::bigint[],
                      $7::int[], $8::bigint[], $9::int[], $10::boolean[])
            as each (order_id, number, sku_id, code, name, price, quantity, amount, refunded,
                     counted)""",
)
GET_ORDER: Final = Query(ShopOrder, f"select {_ORDER} from shop_order where id = $1")
LOCK_ORDER: Final = Query(
    ShopOrder, f"select {_ORDER} from shop_order where id = $1 for no key update"
)
FIND_ORDER: Final = Query(
    ShopOrder, f"select {_ORDER} from shop_order where id = $1 and merchant_id = $2 and mode = $3"
)
FIND_BY_NUMBER: Final = Query(
    ShopOrder,
    f"""select {_ORDER} from shop_order
         where merchant_id = $1 and mode = $2 and merchant_order_no = $3""",
)
LINES_OF: Final = Query(
    OrderLine, f"select {_LINE} from order_line where order_id = $1 order by number"
)
LIST_ORDERS: Final = Query(
    ShopOrder,
    f"""select {_ORDER} from shop_order
         where merchant_id = $1 and mode = $2 and ($3::text is null or state = $3)
           and ($4::text is null or merchant_order_no = $4)
           and ($5::timestamptz is null or created_at >= $5)
           and ($6::timestamptz is null or created_at < $6)
           and ($7::uuid is null or id < $7)
         order by id desc limit $8""",
)
# The payment is made in the commit that says so; another for the same order is refused there.
TAKE_PAYMENT: Final = Statement(
    """update shop_order set payment_id = $2
        where id = $1 and state = 'placed' and (payment_id is null or payment_id = $2)"""
)
MARK_PAID: Final = Query(
    ShopOrder,
    f"""update shop_order set state = 'paid', payment_id = $2, paid_at = $3
         where id = $1 and state = 'placed'
        returning {_ORDER}""",
)
MARK_CANCELLED: Final = Query(
    ShopOrder,
    f"""update shop_order set state = 'cancelled', ended_at = $2
         where id = $1 and state = 'placed'
        returning {_ORDER}""",
)
MARK_FULFILLED: Final = Query(
    ShopOrder,
    f"""update shop_order set state = 'fulfilled', ended_at = coalesce(ended_at, $4)
         where id = $1 and merchant_id = $2 and mode = $3 and state in ('paid', 'fulfilled')
        returning {_ORDER}""",
)

# Giving back

_REFUND: Final = """id, order_id, merchant_id, mode, amount, lines, restock, reason, state, code,
    refund_id, created_at, ended_at"""

INSERT_REFUND: Final = Query(
    OrderRefund,
    f"""insert into order_refund ({_REFUND})
        values ($1, $2, $3, $4, $5, $6, $7, $8, 'requested', null, null, $9, null)
        returning {_REFUND}""",
)
ADD_REFUNDED: Final = Statement("update shop_order set refunded = refunded + $2 where id = $1")
ADD_LINE_REFUNDED: Final = Statement(
    "update order_line set refunded = refunded + $3 where order_id = $1 and number = $2"
)
ADD_RETURNED: Final = Query(
    ShopOrder,
    f"""update shop_order
           set returned = returned + $2,
               state = case when returned + $2 = total then 'refunded' else state end
         where id = $1
        returning {_ORDER}""",
)
GET_REFUND: Final = Query(OrderRefund, f"select {_REFUND} from order_refund where id = $1")
FIND_BY_REFUND: Final = Query(
    OrderRefund, f"select {_REFUND} from order_refund where refund_id = $1"
)
REFUNDS_OF: Final = Query(
    OrderRefund, f"select {_REFUND} from order_refund where order_id = $1 order by id"
)
TAKE_REFUND: Final = Statement(
    """update order_refund set refund_id = $2
        where id = $1 and (refund_id = $2 or (refund_id is null and state = 'requested'))"""
)
END_REFUND: Final = Query(
    OrderRefund,
    f"""update order_refund set state = $2, code = $3, ended_at = $4
         where id = $1 and state = 'requested'
        returning {_REFUND}""",
)
