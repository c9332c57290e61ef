-- A replay of past traffic asks a draft about cards too: what a decision knew of one stays with it.
-- Of its number no more than its issuer's part (PCI DSS lets eight of sixteen digits stand).
alter table routing_decision
    add column bin    text not null default '' check (bin ~ '^[0-9]{0,8}$'),
    add column card   text not null default '',
    add column issuer text not null default '';
