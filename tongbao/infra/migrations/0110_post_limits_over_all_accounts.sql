-- The program that counted by class is gone. Whose first account it had opened since 0091 gets the
-- meters over all accounts now; what it had counted since is added to them; its own rows go.
-- Commits count in an order of their own, which one statement over all rows does not keep to.
lock table limit_meter in share row exclusive mode;

insert into limit_meter (book, owner_id, kind, meter, currency, day, day_used, year, year_used,
                         used)
select known.book, known.owner_id, wanted.family, wanted.meter, known.currency, known.day, 0,
       known.year, 0, 0
  from limit_meter known,
       (values ('payment_account', 'out_others'), ('payment_account', 'weak_one'),
               ('payment_account', 'weak_two'), ('payment_account', 'code_one'),
               ('payment_account', 'code_two'), ('payment_account', 'code_static'),
               ('bank_account', 'weak_two'), ('bank_account', 'code_static')
       ) as wanted (family, meter)
 where known.meter = 'out_all' and known.kind like wanted.family || '\__'
    on conflict do nothing;

with since as (
    select c.book, c.owner_id, split_part(c.kind, '_account_', 1) || '_account' as family, c.meter,
           c.currency, c.day, c.year,
           c.day_used - case when b.day = c.day then b.day_used else 0 end as day_more,
           c.year_used - case when b.year = c.year then b.year_used else 0 end as year_more,
           c.used - coalesce(b.used, 0) as more,
           max(c.day) over of_all as last_day, max(c.year) over of_all as last_year
      from limit_meter c
      left join limit_meter b
        on b.book = c.book and b.owner_id = c.owner_id and b.kind = c.kind || '.carried'
       and b.meter = c.meter and b.currency = c.currency
     where (c.kind like 'payment\_account\__'
            and c.meter in ('out_others', 'weak_one', 'weak_two', 'code_one', 'code_two',
                            'code_static'))
        or (c.kind like 'bank\_account\__' and c.meter in ('weak_two', 'code_static'))
    window of_all as (partition by c.book, c.owner_id, split_part(c.kind, '_account_', 1), c.meter,
                                   c.currency)
), summed as (
    select since.book, since.owner_id, since.family, since.meter, since.currency, since.last_day,
           since.last_year, sum(since.more) as more,
           sum(since.day_more) filter (where since.day = since.last_day) as day_more,
           sum(since.year_more) filter (where since.year = since.last_year) as year_more
      from since
     group by since.book, since.owner_id, since.family, since.meter, since.currency,
              since.last_day, since.last_year
)
update limit_meter m
   set day = greatest(m.day, s.last_day), year = greatest(m.year, s.last_year),
       used = greatest(m.used + s.more, 0),
       day_used = greatest(case when m.day > s.last_day then m.day_used
                                when m.day = s.last_day then m.day_used + s.day_more
                                else s.day_more end, 0),
       year_used = greatest(case when m.year > s.last_year then m.year_used
                                 when m.year = s.last_year then m.year_used + s.year_more
                                 else s.year_more end, 0)
  from summed s
 where m.book = s.book and m.owner_id = s.owner_id and m.kind = s.family and m.meter = s.meter
   and m.currency = s.currency;

delete from limit_meter
 where kind like '%.carried'
    or (kind like 'payment\_account\__'
        and meter in ('out_others', 'weak_one', 'weak_two', 'code_one', 'code_two',
                      'code_static'))
    or (kind like 'bank\_account\__' and meter in ('weak_two', 'code_static'));
