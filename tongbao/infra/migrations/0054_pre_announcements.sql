-- What a customer is told of before money is taken under an agreement is kept as what else is asked
-- of its channel; and shares that channels gave are found by the day they were given on.

alter table agreement_exchange
    drop constraint agreement_exchange_purpose_check,
    add constraint agreement_exchange_purpose_check
        check (purpose in ('offer', 'query', 'end', 'announce'));

create index split_given_on on split (ended_at) where side = 'channel';
create index split_return_given_on on split_return (ended_at) where state = 'succeeded';
