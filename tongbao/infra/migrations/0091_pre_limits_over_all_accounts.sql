-- Meters of what the law adds up over all accounts of a person, whatever their class. They begin
-- with what the classes have counted; the program before this one goes on counting by class until
-- it is gone. What each class has now stays beside it, so that 0110 can add what came after.
insert into limit_meter (book, owner_id, kind, meter, currency, day, day_used, year, year_used,
                         used)
select known.book, known.owner_id, known.kind || '.carried', known.meter, known.currency, known.day,
       known.day_used, known.year, known.year_used, known.used
  from limit_meter known
 where (known.kind in ('payment_account_1', 'payment_account_2', 'payment_account_3')
        and known.meter in ('out_others', 'weak_one', 'weak_two', 'code_one', 'code_two',
                            'code_static'))
    or (known.kind in ('bank_account_1', 'bank_account_2', 'bank_account_3')
        and known.meter in ('weak_two', 'code_static'));

with carried as (
    select c.book, c.owner_id, split_part(c.kind, '_account_', 1) || '_account' as family, c.meter,
           c.currency, c.day, c.day_used, c.year, c.year_used, c.used,
           max(c.day) over of_all as last_day, max(c.year) over of_all as last_year
      from limit_meter c
     where c.kind like '%.carried'
    window of_all as (partition by c.book, c.owner_id, split_part(c.kind, '_account_', 1), c.meter,
                                   c.currency)
)
insert into limit_meter (book, owner_id, kind, meter, currency, day, day_used, year, year_used,
                         used)
select carried.book, carried.owner_id, carried.family, carried.meter, carried.currency,
       carried.last_day, sum(carried.day_used) filter (where carried.day = carried.last_day),
       carried.last_year, sum(carried.year_used) filter (where carried.year = carried.last_year),
       sum(carried.used)
  from carried
 group by carried.book, carried.owner_id, carried.family, carried.meter, carried.currency,
          carried.last_day, carried.last_year;
