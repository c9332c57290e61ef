// Reads, writes and signs Qra's documents with the XML and the MD5 of wechatpay-axios-plugin.
//
// The client was written for WeChat Pay's second version, whose documents and signatures Qra's are;
// what each service is called is Qra's. Takes the folder it is installed in as its argument, reads
// {"url", "credentials", "ours"} from standard input and prints what it heard as one JSON object.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.argv[2]}/package.json`);
const { Formatter, Hash, Transformer } = require("wechatpay-axios-plugin");

const { url, credentials: keys, ours } = JSON.parse(readFileSync(0, "utf8"));
const letters = [];
const inbox = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    letters.push(Buffer.concat(parts).toString());
    response.end("success");
  });
});

function verified(text, key = keys.secure_key) {
  const { sign, ...fields } = Transformer.toObject(text);
  return { genuine: sign === Hash.sign(Hash.ALGO_MD5, fields, key), fields };
}

function written(fields, key = keys.secure_key) {
  return Transformer.toXml({ ...fields, sign: Hash.sign(Hash.ALGO_MD5, fields, key) });
}

async function control(path, body) {
  const answer = await fetch(`${url}/control/${path}`, { method: "POST", body: JSON.stringify(body) });
  return answer.json();
}

async function ask(service, fields) {
  const whole = {
    service, version: "2.0", charset: "UTF-8", sign_type: "MD5", mch_id: keys.mch_id, nonce_str: Formatter.nonce(), ...fields,
  };
  const answer = await fetch(`${url}/qra/pay/gateway`, { method: "POST", body: written(whole) });
  return verified(await answer.text());
}

async function nextLetter() {
  for (let turn = 0; turn < 1000; turn += 1) {
    if (letters.length) return letters.shift();
    await new Promise((done) => setTimeout(done, 10));
  }
  throw new Error("no callback came");
}

function order(number, more = {}) {
  return {
    out_trade_no: number, body: "一杯咖啡 & <1> muffin", total_fee: "1999", mch_create_ip: "127.0.0.1",
    notify_url: `http://127.0.0.1:${inbox.address().port}/notify`, ...more,
  };
}

async function drive() {
  const heard = { ours: verified(ours.document, ours.key), theirs: written({ body: "中 & <文>", total_fee: "1" }, ours.key) };
  heard.native = await ask("unified.trade.native", order("witness-native"));
  await control("customer/scan", { channel: "unionpay_qra", number: "witness-native", action: "pay" });
  heard.callback = verified(await nextLetter());
  heard.query = await ask("unified.trade.query", { out_trade_no: "witness-native" });
  const back = { out_trade_no: "witness-native", out_refund_no: "witness-refund", total_fee: "1999", refund_fee: "500", op_user_id: keys.mch_id };
  heard.refund = await ask("unified.trade.refund", back);
  await control("clock", { advance_s: 5 });
  heard.refunded = await ask("unified.trade.refundquery", { out_trade_no: "witness-native", out_refund_no: "witness-refund" });
  const code = await control("customer/payment-code", { channel: "unionpay_qra", behaviour: "pay" });
  const { notify_url: unused, ...charged } = order("witness-code", { auth_code: code.auth_code });
  heard.micropay = await ask("unified.trade.micropay", charged);
  heard.reverse = await ask("unified.micropay.reverse", { out_trade_no: "witness-code" });
  await ask("unified.trade.native", order("witness-close"));
  heard.close = await ask("unified.trade.close", { out_trade_no: "witness-close" });
  heard.unknown = await ask("unified.trade.query", { out_trade_no: "witness-none" });
  await control("faults", { channel: "unionpay_qra", on: "pay", fault: "bad_signature_paid", number: "witness-forged" });
  heard.forged = await ask("unified.trade.native", order("witness-forged"));
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
