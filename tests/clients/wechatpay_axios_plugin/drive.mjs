// Drives the sandbox with wechatpay-axios-plugin, a client written by others.
//
// Takes the folder it is installed in as its argument, reads {"url", "credentials"} from standard
// input and prints what the client made of each answer as one JSON object. The client verifies
// every 2xx answer's signature and time itself, and throws when they are wrong.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.argv[2]}/package.json`);
const { Wechatpay, Aes, Rsa, Formatter } = require("wechatpay-axios-plugin");

const { url, credentials: keys } = JSON.parse(readFileSync(0, "utf8"));
const OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o";
const letters = [];
const inbox = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    letters.push({ headers: request.headers, body: Buffer.concat(parts).toString() });
    response.writeHead(204).end();
  });
});

async function control(path, body) {
  const answer = await fetch(`${url}/control/${path}`, { method: "POST", body: JSON.stringify(body) });
  return answer.json();
}

function clientWith(certs) {
  return new Wechatpay({
    baseURL: `${url}/wechat/`,
    proxy: false,
    mchid: keys.mchid,
    serial: keys.merchant_serial,
    privateKey: keys.merchant_private_key_pem,
    certs,
  });
}

async function answered(promise) {
  try {
    const { status, data } = await promise;
    return { status, data };
  } catch (failure) {
    return { status: failure.response?.status, code: failure.code, data: failure.response?.data };
  }
}

async function nextLetter() {
  for (let turn = 0; turn < 1000; turn += 1) {
    if (letters.length) return letters.shift();
    await new Promise((done) => setTimeout(done, 10));
  }
  throw new Error("no callback came");
}

function opened({ headers, body }) {
  const message = Formatter.response(headers["wechatpay-timestamp"], headers["wechatpay-nonce"], body);
  const certificate = Rsa.from(keys.platform_certificate_pem, Rsa.KEY_TYPE_PUBLIC);
  const verified = Rsa.verify(message, headers["wechatpay-signature"], certificate);
  const { event_type: type, resource } = JSON.parse(body);
  const { ciphertext, nonce, associated_data: associated } = resource;
  const plain = Aes.AesGcm.decrypt(ciphertext, keys.api_v3_key, nonce, associated);
  return { verified, type, resource: JSON.parse(plain) };
}

function order(number, more = {}) {
  return {
    appid: keys.appid,
    mchid: keys.mchid,
    description: "扫码 & 点心",
    out_trade_no: number,
    notify_url: `http://127.0.0.1:${inbox.address().port}/notify`,
    amount: { total: 1999, currency: "CNY" },
    ...more,
  };
}

async function drive() {
  const heard = {};
  const client = clientWith({ [keys.platform_serial]: keys.platform_certificate_pem });
  const pay = (product, body) => answered(client.chain(`v3/pay/transactions/${product}`).post(body));
  const numbered = (number) => client.chain(`v3/pay/transactions/out-trade-no/${number}`);

  heard.native = await pay("native", order("axios-native"));
  await control("customer/scan", { code_url: heard.native.data.code_url, action: "pay" });
  heard.callback = opened(await nextLetter());
  heard.query = await answered(numbered("axios-native").get({ params: { mchid: keys.mchid } }));
  heard.closed = await pay("native", order("axios-close"));
  heard.close = await answered(numbered("axios-close").chain("close").post({ mchid: keys.mchid }));
  heard.unknown = await answered(numbered("axios-none").get({ params: { mchid: keys.mchid } }));

  const { data: { prepay_id: prepaid } } = await pay("jsapi", order("axios-jsapi", { payer: { openid: OPENID } }));
  const handed = { appId: keys.appid, timeStamp: `${Formatter.timestamp()}`, nonceStr: Formatter.nonce(), package: `prepay_id=${prepaid}` };
  const lines = Formatter.joinedByLineFeed(handed.appId, handed.timeStamp, handed.nonceStr, handed.package);
  const signed = { ...handed, signType: "RSA", paySign: Rsa.sign(lines, keys.merchant_private_key_pem) };
  heard.opened = await control("wechat/open", { parameters: signed });
  heard.opened_wrongly = await control("wechat/open", { parameters: { ...signed, package: "prepay_id=x" } });

  heard.h5 = await pay("h5", order("axios-h5", { scene_info: { payer_client_ip: "127.0.0.1", h5_info: { type: "Wap" } } }));
  const sealed = Rsa.encrypt("示例商贸有限公司", keys.platform_certificate_pem);
  heard.receiver = await answered(
    client.chain("v3/profitsharing/receivers/add").post(
      { appid: keys.appid, type: "MERCHANT_ID", account: "86693852", name: sealed, relation_type: "STORE" },
      { headers: { "Wechatpay-Serial": keys.platform_serial } },
    ),
  );
  const refund = { out_trade_no: "axios-native", out_refund_no: "axios-refund", amount: { refund: 500, total: 1999, currency: "CNY" } };
  heard.refund = await answered(client.chain("v3/refund/domestic/refunds").post(refund));
  heard.certificates = await answered(client.chain("v3/certificates").get());

  const modern = clientWith({ [keys.public_key_id]: keys.public_key_pem });
  const asked = { headers: { "Wechatpay-Serial": keys.public_key_id } };
  heard.public_key = await answered(modern.chain("v3/pay/transactions/native").post(order("axios-public"), asked));
  await control("faults", { channel: "wechat", on: "pay", fault: "bad_signature_paid", number: "axios-forged" });
  heard.forged = await pay("native", order("axios-forged"));
  return heard;
}

inbox.listen(0, "127.0.0.1", async () => {
  try {
    process.stdout.write(JSON.stringify(await drive()));
  } finally {
    inbox.close();
    inbox.closeAllConnections();
  }
});
