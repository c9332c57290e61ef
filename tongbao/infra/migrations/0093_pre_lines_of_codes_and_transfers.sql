-- Lines of the law that stood in no row. 296号 draws its own over all payment accounts: those of
-- 43号 have the same figures over all that goes out, and a change of these must not take the
-- narrower ones away. 261号 asks for a certificate's signature where a person sends more than
-- 50,000 yuan a day without the counter: a bank's accounts had no such line where nobody is asked,
-- as by a card's number. `weak_two` counts merchants' codes as well, the stricter reading.
-- Both programs read these rows, and all of their meters count already.
insert into limit_rule (kind, meter, period, currency, valid_from, most, instrument) values
    ('payment_account_1', 'code_one', 'day', 'CNY', '2018-04-01', 100000,
        '银发〔2017〕296号 条码支付业务规范（试行）：C级，不足两类要素，同一客户所有支付账户单日累计1000元'),
    ('payment_account_1', 'code_two', 'day', 'CNY', '2018-04-01', 500000,
        '银发〔2017〕296号 条码支付业务规范（试行）：B级，两类要素但无证书或电子签名，同一客户所有支付账户单日累计5000元'),
    ('payment_account_2', 'code_one', 'day', 'CNY', '2018-04-01', 100000,
        '银发〔2017〕296号 条码支付业务规范（试行）：C级，不足两类要素，同一客户所有支付账户单日累计1000元'),
    ('payment_account_2', 'code_two', 'day', 'CNY', '2018-04-01', 500000,
        '银发〔2017〕296号 条码支付业务规范（试行）：B级，两类要素但无证书或电子签名，同一客户所有支付账户单日累计5000元'),
    ('payment_account_3', 'code_one', 'day', 'CNY', '2018-04-01', 100000,
        '银发〔2017〕296号 条码支付业务规范（试行）：C级，不足两类要素，同一客户所有支付账户单日累计1000元'),
    ('payment_account_3', 'code_two', 'day', 'CNY', '2018-04-01', 500000,
        '银发〔2017〕296号 条码支付业务规范（试行）：B级，两类要素但无证书或电子签名，同一客户所有支付账户单日累计5000元'),
    ('bank_account_1', 'weak_two', 'day', 'CNY', '2016-12-01', 5000000,
        '银发〔2016〕261号：个人非柜面转账单日累计超过5万元，须采用数字证书或电子签名'),
    ('bank_account_2', 'weak_two', 'day', 'CNY', '2016-12-01', 5000000,
        '银发〔2016〕261号：个人非柜面转账单日累计超过5万元，须采用数字证书或电子签名'),
    ('bank_account_3', 'weak_two', 'day', 'CNY', '2016-12-01', 5000000,
        '银发〔2016〕261号：个人非柜面转账单日累计超过5万元，须采用数字证书或电子签名');
