-- Prices: what each payment's fee was worked out from, so that anybody can work it out again.

-- What a merchant has collected in a business month by payments whose price counts that: the
-- running total, raised in the commit in which a payment succeeds.
create table price_volume (
    book         int    not null,
    merchant_id  uuid   not null,
    mode         text   not null check (mode in ('live', 'sandbox')),
    currency     text   not null check (length(currency) = 3),
    month        date   not null check (extract(day from month) = 1),
    collected    bigint not null check (collected > 0),
    primary key (book, merchant_id, mode, currency, month)
);

-- The version of the plan, the business day it was priced on, the month's volume before it (where
-- the price counts that) and the kind of card (where the price depends on it).
alter table payment
    add column price_version int    check (price_version > 0),
    add column price_day     date,
    add column price_volume  bigint check (price_volume >= 0),
    add column card_kind     text   check (card_kind in ('any', 'debit', 'credit', 'foreign')),
    add constraint payment_priced check ((price_version is null) = (price_day is null));
