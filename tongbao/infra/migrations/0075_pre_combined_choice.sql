-- A customer may choose the way to pay a combined payment: each way is a try with a number of its
-- own at the channel, and the next begins when the one before is provably closed. `wish` is the way
-- that is to be tried next; `try_id` stands for the number, the first try's being the whole's id.
alter table combined_payment
    add column chooses boolean not null default false,
    add column tries int not null default 1 check (tries between 1 and 20),
    add column try_id uuid,
    add column wish text check (length(wish) between 1 and 80),
    add check ((try_id is null) = (tries = 1)),
    add check (wish is null or chooses);
alter table combined_part add column try_id uuid;
create index combined_part_by_try on combined_part (try_id) where try_id is not null;
