// Collects, gives back, lists and verifies a webhook with the SDK for TypeScript; says what it saw.
import { readFileSync } from "node:fs";

const given = JSON.parse(readFileSync(0, "utf8"));
const sdk = await import(given.sdk);
const { MessageSigner, Refused, Tongbao, Unanswered, WebhookInvalid, verifyWebhook } = sdk;
const pauses = [];
const shop = new Tongbao(given.url, {
  keyId: given.keyId,
  ...(given.privateKey === undefined ? { secret: given.secret } : { privateKey: given.privateKey }),
  pause: async (ms) => pauses.push(ms),
});
const seen = {};

const failing = async (work) => {
  try {
    await work();
  } catch (failure) {
    return failure;
  }
  return undefined;
};

if (given.act === "person") {
  const phone = new sdk.Person(given.url, { privateKey: given.pem, mode: "sandbox" });
  const nobody = await failing(() => phone.call("GET /v1/me"));
  const wrong = await failing(() => phone.logIn(given.contact, "another-Password-1"));
  const opened = await phone.logIn(given.contact, given.password);
  const accounts = await phone.call("GET /v1/me/e_accounts");
  const account = await phone.call("GET /v1/me");
  await phone.logOut();
  seen.refused = [nobody.status, wrong instanceof Refused, wrong.code];
  seen.accounts = accounts;
  seen.isSame = account.id === opened.person_id && phone.session === undefined;
} else if (given.act === "trade") {
  const body = {
    merchant_order_no: given.orderNo,
    amount: 1999,
    currency: "CNY",
    subject: "两杯茶",
    method: { channel: "wechat_pay", mode: "payment_code", auth_code: given.code },
  };
  const kept = [];
  const payment = await shop.call("POST /v1/payments", { body, remember: (key) => kept.push(key) });
  const again = await shop.call("POST /v1/payments", { body, idempotencyKey: kept[0] });
  const path = { payment_id: payment.id };
  const refund = await shop.call("POST /v1/payments/{payment_id}/refunds", {
    path,
    body: { merchant_refund_no: given.orderNo, amount: 999 },
  });
  const found = await shop.call("GET /v1/payments", { query: { merchant_order_no: given.orderNo } });
  const refunds = [];
  for await (const each of shop.pages("GET /v1/refunds", { query: { limit: 1 } })) {
    refunds.push(each.id);
  }
  const refusal = await failing(() =>
    shop.call("POST /v1/payments", { body: { ...body, amount: 0, merchant_order_no: "x" } }),
  );
  Object.assign(seen, {
    status: payment.status,
    isSame: again.id === payment.id,
    keys: kept.length,
    refundOf: refund.payment_id === payment.id,
    found: found.items.map((each) => each.id === payment.id),
    isListed: refunds.includes(refund.id),
    refusal: refusal instanceof Refused && refusal.code,
    requestId: refusal.requestId,
    badId: (await failing(() => shop.call("GET /v1/payments/{payment_id}", { path: { payment_id: ".." } })))
      .name,
  });
} else if (given.act === "webhook") {
  const keys = { publicKeys: given.publicKeys, secrets: given.secrets, now: given.now };
  const raw = Buffer.from(given.body, "base64");
  const event = verifyWebhook(given.headers, raw, keys);
  const forged = await failing(() => verifyWebhook(given.headers, Buffer.concat([raw, raw]), keys));
  const late = await failing(() => verifyWebhook(given.headers, raw, { ...keys, now: given.now + 301 }));
  const headless = await failing(() => verifyWebhook({}, raw, keys));
  seen.event = event;
  seen.refused = [forged, late, headless].map((each) => each instanceof WebhookInvalid);
} else if (given.act === "upload") {
  const outcome = await failing(() =>
    shop.call("POST /v1/applications/{application_id}/files", {
      path: { application_id: "app_00000000000000000000000000" },
      query: { kind: "business_license" },
      body: Buffer.from("%PDF-1.7 a file"),
      contentType: "application/pdf",
    }),
  );
  seen.code = outcome?.code;
} else if (given.act === "sign") {
  const signer = new MessageSigner(given.keyId, given.privateKey);
  const { method, url, body, headers, at, nonce } = given;
  seen.headers = signer.headers(method, url, body, headers, { at, nonce });
} else {
  const outcome = await failing(async () => {
    seen.reply = await shop.call("POST /v1/payments", { body: given.body });
  });
  seen.failure = outcome?.name;
  seen.code = outcome?.code;
  seen.key = outcome instanceof Unanswered ? outcome.idempotencyKey : undefined;
  seen.after = outcome?.afterUnanswered;
  seen.pauses = pauses;
}
console.log(JSON.stringify(seen));
