-- What a person pays at codes that do not change, such as a plate's, however it was confirmed.
insert into limit_rule (kind, meter, period, currency, valid_from, most, instrument) values
    ('payment_account_1', 'code_static', 'day', 'CNY', '2018-04-01', 50000,
        '银发〔2017〕296号 条码支付业务规范（试行）：D级，静态条码，同一客户单日累计500元'),
    ('payment_account_2', 'code_static', 'day', 'CNY', '2018-04-01', 50000,
        '银发〔2017〕296号 条码支付业务规范（试行）：D级，静态条码，同一客户单日累计500元'),
    ('payment_account_3', 'code_static', 'day', 'CNY', '2018-04-01', 50000,
        '银发〔2017〕296号 条码支付业务规范（试行）：D级，静态条码，同一客户单日累计500元'),
    ('bank_account_1', 'code_static', 'day', 'CNY', '2018-04-01', 50000,
        '银发〔2017〕296号 条码支付业务规范（试行）：D级，静态条码，同一客户单日累计500元'),
    ('bank_account_2', 'code_static', 'day', 'CNY', '2018-04-01', 50000,
        '银发〔2017〕296号 条码支付业务规范（试行）：D级，静态条码，同一客户单日累计500元'),
    ('bank_account_3', 'code_static', 'day', 'CNY', '2018-04-01', 50000,
        '银发〔2017〕296号 条码支付业务规范（试行）：D级，静态条码，同一客户单日累计500元');
insert into limit_meter (book, owner_id, kind, meter, currency, day, day_used, year, year_used,
                         used)
select known.book, known.owner_id, known.kind, 'code_static', known.currency, known.day, 0,
       known.year, 0, 0
  from limit_meter known
 where known.meter = 'out_all';
