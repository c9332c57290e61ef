-- How far the round of invariants has looked, and the few rows it looks for, so that a round costs
-- what happened since the last one and not what ever happened.

create table invariant_mark (
    name    text        not null primary key
            check (name in ('payments.new', 'payments.past', 'audit.new', 'audit.past')),
    place   uuid        not null,
    number  bigint      not null check (number >= 0),
    at      timestamptz not null
);

create index attempt_unknown on attempt (id, book) where state = 'unknown';
create index refund_unknown on refund (id, book) where state = 'unknown';

do $$
begin
    if to_regclass('payout') is not null then
        create index payout_unknown on payout (id, book) where state = 'unknown';
        create index transfer_item_unknown on transfer_item (id, book) where state = 'unknown';
        create index offline_code_by_time on offline_code using brin (used_at);
    end if;
end
$$;
