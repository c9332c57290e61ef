"""The SQL of restaurant tables and reviews; nothing outside this package reads these tables."""

from __future__ import annotations

from typing import Final

from tongbao.infra.db import Query, Statement
from tongbao.products.scenes.model import DiningTable, Dish, OrderReview, TableTab

_TABLE: Final = "id, merchant_id, mode, token, name, created_at, revoked_at"
_TAB: Final = "id, table_id, merchant_id, mode, state, dishes, opened_at, closed_at"
_DISH: Final = """id, tab_id, merchant_id, mode, sku_id, code, name, price, currency, quantity,
    counted, wishes, guest_id, guest_name, state, order_id, paid, created_at"""

INSERT_TABLE: Final = Query(
    DiningTable,
    f"""insert into dining_table ({_TABLE}) values ($1, $2, $3, $4, $5, $6, null)
        returning {_TABLE}""",
)
REVOKE_TABLE: Final = Query(
    DiningTable,
    f"""update dining_table set revoked_at = coalesce(revoked_at, $4)
         where id = $1 and merchant_id = $2 and mode = $3
        returning {_TABLE}""",
)
FIND_TABLE: Final = Query(
    DiningTable,
    f"select {_TABLE} from dining_table where id = $1 and merchant_id = $2 and mode = $3",
)
TABLE_OF_TOKEN: Final = Query(
    DiningTable, f"select {_TABLE} from dining_table where token = $1 and revoked_at is null"
)
LIST_TABLES: Final = Query(
    DiningTable,
    f"""select {_TABLE} from dining_table
         where merchant_id = $1 and mode = $2 and ($3::uuid is null or id < $3)
         order by id desc limit $4""",
)

OPEN_TAB: Final = Statement(
    """insert into table_tab (id, table_id, merchant_id, mode, state, dishes, opened_at, closed_at)
       values ($1, $2, $3, $4, 'open', 0, $5, null)
       on conflict (table_id) where state = 'open' do nothing"""
)
COUNT_DISH: Final = Query(
    TableTab,
    f"""update table_tab set dishes = dishes + 1
         where table_id = $1 and state = 'open' and dishes < $2
        returning {_TAB}""",
)
TAB_OF_TABLE: Final = Query(
    TableTab, f"select {_TAB} from table_tab where table_id = $1 and state = 'open'"
)
LOCK_TAB: Final = Query(TableTab, f"select {_TAB} from table_tab where id = $1 for no key update")
FIND_TAB: Final = Query(
    TableTab, f"select {_TAB} from table_tab where id = $1 and merchant_id = $2 and mode = $3"
)
LIST_TABS: Final = Query(
    TableTab,
    f"""select {_TAB} from table_tab
         where merchant_id = $1 and mode = $2 and ($3::text is null or state = $3)
           and ($4::uuid is null or id < $4)
         order by id desc limit $5""",
)
# Asked after the tab's lock is had, so that a dish which was added meanwhile is seen.
CLOSE_TAB_IF_PAID: Final = Query(
    TableTab,
    f"""update table_tab set state = 'closed', closed_at = $2
         where id = $1 and state = 'open'
           and not exists (select from dish where dish.tab_id = table_tab.id
                              and dish.state <> 'cancelled' and not dish.paid)
        returning {_TAB}""",
)

INSERT_DISH: Final = Query(
    Dish,
    f"""insert into dish ({_DISH})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'ordered', null, false,
                $15)
        on conflict (id) do nothing
        returning {_DISH}""",
)
LOCK_DISH: Final = Query(
    Dish,
    f"""select {_DISH} from dish where id = $1 and merchant_id = $2 and mode = $3
           for no key update""",
)
MOVE_DISH: Final = Query(Dish, f"update dish set state = $2 where id = $1 returning {_DISH}")
DISHES_OF: Final = Query(Dish, f"select {_DISH} from dish where tab_id = $1 order by id")
LOCK_UNBILLED: Final = Query(
    Dish,
    f"""select {_DISH} from dish
         where tab_id = $1 and order_id is null and state <> 'cancelled'
           and ($2::uuid is null or guest_id = $2)
         order by id for no key update""",
)
BILL: Final = Statement("update dish set order_id = $2 where id = any($1::uuid[])")
UNBILL: Final = Statement("update dish set order_id = null where order_id = $1")
MARK_PAID: Final = Statement("update dish set paid = true where order_id = $1")
LIST_DISHES: Final = Query(
    Dish,
    f"""select {_DISH} from dish
         where merchant_id = $1 and mode = $2 and ($3::text is null or state = $3)
           and ($4::uuid is null or id < $4)
         order by id desc limit $5""",
)

INSERT_REVIEW: Final = Statement(
    """insert into order_review (order_id, merchant_id, mode, stars, words, created_at)
       values ($1, $2, $3, $4, $5, $6) on conflict (order_id) do nothing"""
)
LIST_REVIEWS: Final = Query(
    OrderReview,
    """select order_id, merchant_id, mode, stars, words, created_at from order_review
        where merchant_id = $1 and mode = $2 and ($3::uuid is null or order_id < $3)
        order by order_id desc limit $4""",
)
