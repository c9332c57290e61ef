-- A shop: what it sells, what is left of it, orders that a payment pays, and restaurant tables.
-- Nothing here is money: an order says which payment paid it, and payments say what was paid.

create table product (
    id           uuid        primary key,
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    name         text        not null check (length(name) between 1 and 120),
    category     text        not null check (length(category) <= 64),
    description  text        not null check (length(description) <= 1000),
    image_key    text        check (length(image_key) between 1 and 200),
    on_shelf     boolean     not null,
    created_at   timestamptz not null
);
create index product_of_merchant on product (merchant_id, mode, id);

-- Stock is four running totals on the row that is sold from: what came in is on the shelf, promised
-- to an order, or sold. A guarded update moves pieces between them and can never find too few.
create table sku (
    id           uuid        primary key,
    product_id   uuid        not null references product (id),
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    code         text        not null check (length(code) between 1 and 64),
    name         text        not null check (length(name) <= 64),   -- of the variant: large, red
    price        bigint      not null check (price > 0),
    currency     text        not null check (currency ~ '^[A-Z]{3}$'),
    counted      boolean     not null,               -- false: there is always more, as with tea
    received     bigint      not null check (received >= 0),
    available    bigint      not null check (available >= 0),
    reserved     bigint      not null check (reserved >= 0),
    sold         bigint      not null check (sold >= 0),
    created_at   timestamptz not null,
    unique (merchant_id, mode, code),
    check (received = available + reserved + sold),
    check (counted or received = 0)
) with (fillfactor = 50);
create index sku_of_product on sku (product_id, id);

create table dining_table (
    id           uuid        primary key,
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    token        text        not null unique check (length(token) between 20 and 64),
    name         text        not null check (length(name) between 1 and 64),
    created_at   timestamptz not null,
    revoked_at   timestamptz
);
create index dining_table_of_merchant on dining_table (merchant_id, mode, id);

-- What a table's guests order from sitting down to paying. One at a time for each table.
create table table_tab (
    id           uuid        primary key,
    table_id     uuid        not null references dining_table (id),
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    state        text        not null check (state in ('open', 'closed')),
    dishes       int         not null check (dishes between 0 and 200),
    opened_at    timestamptz not null,
    closed_at    timestamptz,
    check ((state = 'open') = (closed_at is null))
);
create unique index table_tab_open on table_tab (table_id) where state = 'open';
create index table_tab_of_merchant on table_tab (merchant_id, mode, id);

create table shop_order (
    id                 uuid        primary key,
    merchant_id        uuid        not null,
    mode               text        not null check (mode in ('live', 'sandbox')),
    merchant_order_no  text        not null check (length(merchant_order_no) between 1 and 64),
    request_hash       bytea       not null check (length(request_hash) = 32),
    scene              text        not null check (scene in ('shop', 'table', 'counter')),
    state              text        not null
        check (state in ('placed', 'paid', 'fulfilled', 'cancelled', 'refunded')),
    currency           text        not null check (currency ~ '^[A-Z]{3}$'),
    total              bigint      not null check (total > 0),
    refunded           bigint      not null,          -- asked back, done or on its way
    returned           bigint      not null,          -- of it, what the customer has got
    tab_id             uuid        references table_tab (id),
    payment_id         uuid,                          -- the one that pays or has paid
    subject            text        not null check (length(subject) between 1 and 120),
    return_url         text        check (length(return_url) between 1 and 512),
    metadata           jsonb       not null,
    created_at         timestamptz not null,
    expires_at         timestamptz not null,
    paid_at            timestamptz,
    ended_at           timestamptz,                   -- fulfilled or cancelled
    unique (merchant_order_no, merchant_id, mode),
    check (refunded between 0 and total),
    check (returned between 0 and refunded),
    check ((state in ('paid', 'fulfilled', 'refunded')) = (paid_at is not null)),
    check (state in ('paid', 'fulfilled', 'refunded') or refunded = 0),
    check ((state = 'refunded') = (returned = total)),
    check (paid_at is null or payment_id is not null),
    check ((scene = 'table') = (tab_id is not null)),
    check (created_at < expires_at)
) with (fillfactor = 70);
create index shop_order_of_merchant on shop_order (merchant_id, mode, id);
create index shop_order_of_tab on shop_order (tab_id) where tab_id is not null;

-- Prices are frozen when the order is placed.
create table order_line (
    order_id  uuid    not null references shop_order (id),
    number    int     not null check (number > 0),
    sku_id    uuid    references sku (id),
    code      text    not null check (length(code) <= 64),
    name      text    not null check (length(name) between 1 and 200),
    price     bigint  not null check (price > 0),
    quantity  int     not null check (quantity > 0),
    amount    bigint  not null,
    refunded  int     not null,                       -- pieces asked back
    counted   boolean not null,                       -- whether it took from the stock
    primary key (order_id, number),
    check (amount = price * quantity),
    check (refunded between 0 and quantity)
);

create table order_refund (
    id           uuid        primary key,
    order_id     uuid        not null references shop_order (id),
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    amount       bigint      not null check (amount > 0),
    lines        jsonb       not null,                -- which pieces of which lines
    restock      boolean     not null,
    reason       text        not null check (length(reason) <= 80),
    state        text        not null check (state in ('requested', 'succeeded', 'failed')),
    code         text,
    refund_id    uuid,                                -- the payment's refund
    created_at   timestamptz not null,
    ended_at     timestamptz,
    check ((state = 'requested') = (ended_at is null))
);
create index order_refund_of_order on order_refund (order_id, id);
create index order_refund_of_refund on order_refund (refund_id) where refund_id is not null;

create table order_review (
    order_id     uuid        primary key references shop_order (id),
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    stars        int         not null check (stars between 1 and 5),
    words        text        not null check (length(words) <= 500),
    created_at   timestamptz not null
);
create index order_review_of_merchant on order_review (merchant_id, mode, order_id);

-- One line of a kitchen ticket. With an order it is billed; an order that ends unpaid lets it go.
create table dish (
    id           uuid        primary key,
    tab_id       uuid        not null references table_tab (id),
    merchant_id  uuid        not null,
    mode         text        not null check (mode in ('live', 'sandbox')),
    sku_id       uuid        not null references sku (id),
    code         text        not null check (length(code) between 1 and 64),
    name         text        not null check (length(name) between 1 and 200),
    price        bigint      not null check (price > 0),
    currency     text        not null check (currency ~ '^[A-Z]{3}$'),
    quantity     int         not null check (quantity between 1 and 99),
    counted      boolean     not null,
    wishes       text        not null check (length(wishes) <= 100),
    guest_id     uuid        not null,
    guest_name   text        not null check (length(guest_name) between 1 and 32),
    state        text        not null
        check (state in ('ordered', 'cooking', 'ready', 'served', 'cancelled')),
    order_id     uuid        references shop_order (id),
    paid         boolean     not null,
    created_at   timestamptz not null,
    check (state <> 'cancelled' or order_id is null),
    check (not paid or order_id is not null)
);
create index dish_of_tab on dish (tab_id, id);
create index dish_of_merchant on dish (merchant_id, mode, id);
create index dish_of_order on dish (order_id) where order_id is not null;
