// Drives the sandbox with alipay-sdk, Alipay's own client for Node.js; runs in its own folder.
//
// Usage: node drive.mjs FOLDER_WITH_NODE_MODULES < JSON
// Reads {"url", "credentials"} and prints what the client made of each answer as one JSON object.
// The client verifies the signature of every reply itself and throws when it is wrong. Nothing in
// it is bent: its gateway and its endpoint are options.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

const require = createRequire(join(resolve(process.argv[2]), 'package.json'));
const { AlipaySdk } = require('alipay-sdk');

const given = JSON.parse(readFileSync(0, 'utf8'));
const merchant = given.credentials;
const notices = [];

const inbox = createServer((request, response) => {
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    notices.push(Object.fromEntries(new URLSearchParams(Buffer.concat(parts).toString())));
    response.end('success');
  });
});
await new Promise(done => inbox.listen(0, '127.0.0.1', done));
const notifyUrl = `http://127.0.0.1:${inbox.address().port}/notify`;

const common = {
  appId: merchant.app_id,
  privateKey: merchant.app_private_key_pem,
  keyType: 'PKCS8',
  gateway: `${given.url}/alipay/gateway.do`,
  endpoint: `${given.url}/alipay`,
  camelcase: false,
};
const withKey = new AlipaySdk({ ...common, alipayPublicKey: merchant.alipay_public_key_pem });
const withCertificate = new AlipaySdk({
  ...common,
  appCertContent: merchant.app_certificate_pem,
  alipayPublicCertContent: merchant.alipay_certificate_pem,
  alipayRootCertContent: merchant.root_certificates_pem,
});

async function control(path, body) {
  const reply = await fetch(`${given.url}/control/${path}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  return await reply.json();
}

async function refusalOf(call) {
  try {
    await call();
    return null;
  } catch (refusal) {
    return { name: refusal.name, code: refusal.code, status: refusal.responseHttpStatus };
  }
}

async function play(sdk, prefix) {
  const heard = {};
  const checked = { validateSign: true };
  const order = {
    out_trade_no: `${prefix}-1`,
    total_amount: '12.30',
    subject: '拿铁 中杯 & 茶',
  };
  heard.precreate = await sdk.exec(
    'alipay.trade.precreate', { notify_url: notifyUrl, biz_content: order }, checked,
  );
  await control('customer/scan', { qr_code: heard.precreate.qr_code, action: 'pay' });
  const named = { biz_content: { out_trade_no: order.out_trade_no } };
  heard.query = await sdk.exec('alipay.trade.query', named, checked);

  const page = { ...order, out_trade_no: `${prefix}-2`, product_code: 'FAST_INSTANT_TRADE_PAY' };
  const address = sdk.pageExecute('alipay.trade.page.pay', 'GET', {
    notify_url: notifyUrl, return_url: 'https://shop.example/paid', bizContent: page,
  });
  const visited = await control('alipay/visit', { url: address, action: 'pay' });
  heard.page = visited.state;
  const back = Object.fromEntries(new URL(visited.returned).searchParams);
  heard.return_verified = sdk.checkNotifySign(back);
  heard.return_tampered = sdk.checkNotifySign({ ...back, total_amount: '0.01' });

  const app = { ...order, out_trade_no: `${prefix}-3`, product_code: 'QUICK_MSECURITY_PAY' };
  const text = sdk.sdkExecute('alipay.trade.app.pay', { notify_url: notifyUrl, bizContent: app });
  heard.app = (await control('alipay/visit', { url: text, action: 'pay' })).state;

  const body = { out_trade_no: order.out_trade_no };
  heard.rest_query = (await sdk.curl('POST', '/v3/alipay/trade/query', { body })).data;
  const created = {
    ...order,
    out_trade_no: `${prefix}-4`,
    buyer_id: '2088722000000017',
    product_code: 'JSAPI_PAY',
    op_app_id: merchant.app_id,
  };
  heard.rest_create = (await sdk.curl('POST', '/v3/alipay/trade/create', { body: created })).data;
  heard.rest_absent = await refusalOf(
    () => sdk.curl('POST', '/v3/alipay/trade/query', { body: { out_trade_no: 'nobody' } }),
  );
  const split = { out_request_no: 'S', trade_no: heard.query.trade_no };
  heard.rest_get_absent = await refusalOf(
    () => sdk.curl('GET', '/v3/alipay/trade/order/settle/query', { query: split }),
  );
  return heard;
}

const heard = { key: await play(withKey, 'KEY'), certificate: await play(withCertificate, 'CERT') };

const transfer = {
  out_biz_no: 'T-1',
  trans_amount: '88.00',
  product_code: 'TRANS_ACCOUNT_NO_PWD',
  biz_scene: 'DIRECT_TRANSFER',
  order_title: '佣金',
  payee_info: { identity: '2088722000000201', identity_type: 'ALIPAY_USER_ID' },
};
heard.transfer = await withCertificate.exec(
  'alipay.fund.trans.uni.transfer', { biz_content: transfer }, { validateSign: true },
);
await control('settle', { timeout_s: 10 });
heard.notices = notices.map(fields => ({
  number: fields.out_trade_no,
  by_certificate: 'alipay_cert_sn' in fields,
  verified: withKey.checkNotifySign(fields),
  tampered: withKey.checkNotifySign({ ...fields, total_amount: '0.01' }),
}));
await control('faults', { channel: 'alipay', on: 'query', fault: 'bad_signature', times: 2 });
const one = { biz_content: { out_trade_no: 'KEY-1' } };
heard.bad_signature = await refusalOf(
  () => withKey.exec('alipay.trade.query', one, { validateSign: true }),
);
heard.rest_bad_signature = await refusalOf(
  () => withKey.curl('POST', '/v3/alipay/trade/query', { body: { out_trade_no: 'KEY-1' } }),
);
process.stdout.write(JSON.stringify(heard));
inbox.close();
process.exit(0);
