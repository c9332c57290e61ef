/** The hand-written half of the SDK: signing, safe retries, pages, webhooks. No dependencies. */

import { constants, createHash, createHmac, createPrivateKey, createPublicKey } from "node:crypto";
import { randomBytes, randomUUID, sign, timingSafeEqual, verify } from "node:crypto";

export const VERSION = "0.1.0";
const SCHEME = "TONGBAO-HMAC-SHA256";
const JSON_TYPE = "application/json";
const PAUSE_MAX_S = 8;
const TOLERANCE_S = 300;
const KEY_FORM = /^[\x20-\x7e]{1,255}$/;
// Said before the platform looks whether an earlier try was done, so they say nothing about that.
const SAID_TOO_EARLY = new Set([401, 403, 408, 413, 429]);
// What comes before the raw 32 bytes of an Ed25519 key in DER (RFC 8410 §4).
const ED25519_HEAD = Buffer.from("302a300506032b6570032100", "hex");

/** The platform understood and said no; nothing was done. */
export class Refused extends Error {
  constructor(status, problem) {
    super(`${status} ${problem.code}: ${problem.advice ?? ""}`);
    this.name = "Refused";
    this.status = status;
    this.code = problem.code;
    this.advice = problem.advice ?? "";
    this.param = problem.param;
    this.requestId = problem.request_id;
    this.afterUnanswered = false;
  }
}

/** Nobody said what became of the call: repeat it with the key, or look the thing up. */
export class Unanswered extends Error {
  constructor(reason, idempotencyKey) {
    super(`no answer: ${reason}`);
    this.name = "Unanswered";
    this.idempotencyKey = idempotencyKey;
  }
}

/** The webhook is not the platform's, or too old. */
export class WebhookInvalid extends Error {
  constructor(reason) {
    super(reason);
    this.name = "WebhookInvalid";
  }
}

/** Return the Authorization header of one try; `target` is path and query as they are sent. */
export function authorization(keyId, secret, { method, target, body, at, nonce }) {
  const timestamp = String(at ?? Math.floor(Date.now() / 1000));
  const once = nonce ?? randomBytes(18).toString("base64url");
  const digest = createHash("sha256").update(body).digest("hex");
  const text = `${method}\n${target}\n${timestamp}\n${once}\n${digest}\n`;
  const signature = createHmac("sha256", secret).update(text).digest("base64");
  return `${SCHEME} key=${keyId},timestamp=${timestamp},nonce=${once},signature=${signature}`;
}

/** Signs requests with a private key of your own (RFC 9421): Ed25519, EC P-256 or RSA, as PEM. */
export class MessageSigner {
  #keyId;
  #signing;

  constructor(keyId, privateKey) {
    this.#keyId = keyId;
    this.#signing = signingOf(createPrivateKey(privateKey));
  }

  /** Return the headers that sign a request, each good for one try within five minutes. */
  headers(method, url, body, headers = {}, { at, nonce } = {}) {
    const values = { "@method": method, "@target-uri": url };
    const added = {};
    if (body.length > 0) {
      values["content-digest"] = added["Content-Digest"] = digestOf(body);
    }
    const key = lowered(headers)["idempotency-key"];
    if (key !== undefined) values["idempotency-key"] = key;
    const covered = Object.keys(values).map((name) => `"${name}"`).join(" ");
    const created = at ?? Math.floor(Date.now() / 1000);
    const once = nonce ?? randomBytes(18).toString("base64url");
    const signedAs =
      `(${covered});created=${created};keyid=${JSON.stringify(this.#keyId)}` +
      `;alg="${this.#signing.algorithm}";nonce="${once}";tag="tongbao"`;
    const lines = Object.entries(values).map(([name, value]) => `"${name}": ${value}`);
    const text = [...lines, `"@signature-params": ${signedAs}`].join("\n");
    added["Signature-Input"] = `tongbao=${signedAs}`;
    added.Signature = `tongbao=:${this.#signing.sign(Buffer.from(text)).toString("base64")}:`;
    return added;
  }
}

/** One platform and one API key. */
export class Tongbao {
  #secret;
  #signer;

  constructor(
    url,
    { keyId, secret, privateKey, timeoutMs = 30_000, triesMax = 4, language = "en", pause },
  ) {
    if (triesMax < 1) throw new RangeError("triesMax is at least 1");
    if ((secret === undefined) === (privateKey === undefined)) {
      throw new TypeError("give the key's secret, or the private key that belongs to it");
    }
    this.#signer = privateKey === undefined ? undefined : new MessageSigner(keyId, privateKey);
    const base = new URL(url);
    this.origin = base.origin;
    this.keyId = keyId;
    this.#secret = secret;
    this.timeoutMs = timeoutMs;
    this.triesMax = triesMax;
    this.language = language;
    this.pause = pause ?? ((ms) => new Promise((done) => setTimeout(done, ms)));
  }

  /** Do one operation of the API, named by method and path; what changes something happens once, over every retry. */
  async call(operation, { path = {}, query = {}, body, contentType, idempotencyKey, remember } = {}) {
    const [method, template] = operation.split(" ");
    if (!/^\/v1\//.test(template ?? "")) throw new TypeError(`no such operation: ${operation}`);
    const target = targetOf(template, path, query);
    // A key on every POST: where the route wants none it is not read, and does no harm.
    const key = method === "POST" ? (idempotencyKey ?? randomUUID()) : undefined;
    if (key !== undefined && !KEY_FORM.test(key)) {
      throw new TypeError("an idempotency key is 1 to 255 printable ASCII characters");
    }
    if (key !== undefined && remember !== undefined) await remember(key);
    return this.#send(method, target, contentOf(body, contentType), key);
  }

  /** Yield every item of a list, fetching page after page. */
  async *pages(operation, { path = {}, query = {} } = {}) {
    let cursor;
    do {
      const page = await this.call(operation, { path, query: { ...query, cursor } });
      yield* page.items;
      cursor = page.next_cursor ?? undefined;
    } while (cursor !== undefined);
  }

  async #send(method, target, content, key) {
    let unanswered = false;
    let last;
    for (let attempt = 0; attempt < this.triesMax; attempt += 1) {
      if (attempt > 0) await this.pause(pauseMs(attempt, last.waitS));
      last = await this.#try(method, target, content, key);
      if (last.done) return last.reply;
      if (last.again) {
        // Only a 429 is both a "no" and worth repeating: that try did nothing for certain.
        unanswered ||= last.refused === undefined;
        continue;
      }
      last.refused.afterUnanswered = unanswered;
      // A DELETE whose first try was not answered may have done it, and then there is nothing left.
      if (method === "DELETE" && last.refused.status === 404 && unanswered) return undefined;
      if (unanswered && SAID_TOO_EARLY.has(last.refused.status)) break;
      throw last.refused;
    }
    if (last.refused !== undefined && !unanswered) throw last.refused;
    throw new Unanswered(last.reason, key);
  }

  async #try(method, target, { body, type }, key) {
    const headers = {
      Accept: "application/json",
      "Accept-Language": this.language,
      "User-Agent": `tongbao-sdk-typescript/${VERSION}`,
    };
    if (body.length > 0) headers["Content-Type"] = type;
    if (type !== JSON_TYPE) headers["Content-Digest"] = digestOf(body);
    if (key !== undefined) headers["Idempotency-Key"] = key;
    if (this.#signer === undefined) {
      const request = { method, target, body };
      headers.Authorization = authorization(this.keyId, this.#secret, request);
    } else {
      Object.assign(headers, this.#signer.headers(method, this.origin + target, body, headers));
    }
    let answer;
    let said;
    try {
      answer = await fetch(this.origin + target, {
        method,
        headers,
        body: body.length === 0 ? undefined : body,
        redirect: "manual",
        signal: AbortSignal.timeout(this.timeoutMs),
      });
      said = await answer.text();
    } catch (failure) {
      return { again: true, reason: String(failure.cause?.code ?? failure.name), waitS: 0 };
    }
    return readAnswer(answer, said);
  }
}

/** Return the event of a webhook, verified on its raw bytes (Standard Webhooks 1.0). */
export function verifyWebhook(headers, body, { publicKeys = [], secrets = [], now } = {}) {
  if (publicKeys.length + secrets.length === 0) {
    throw new TypeError("give the endpoint's public keys or secrets");
  }
  const lower = lowered(headers);
  const [id, timestamp] = [lower["webhook-id"], lower["webhook-timestamp"]];
  const signatures = lower["webhook-signature"];
  if (!id || !/^\d{1,12}$/.test(timestamp ?? "") || !signatures) {
    throw new WebhookInvalid("a webhook header is missing or malformed");
  }
  if (Math.abs((now ?? Date.now() / 1000) - Number(timestamp)) > TOLERANCE_S) {
    throw new WebhookInvalid("the webhook's time is more than five minutes off");
  }
  const raw = typeof body === "string" ? Buffer.from(body) : Buffer.from(body);
  const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), raw]);
  const checks = { v1: secrets.map(hmacCheck), v1a: publicKeys.map(ed25519Check) };
  const verifies = signatures.split(" ").some((each) => {
    const [version, text = ""] = each.split(",", 2);
    const given = Buffer.from(text, "base64");
    const those = Object.hasOwn(checks, version) ? checks[version] : [];
    return those.some((check) => check(given, signed));
  });
  if (!verifies) throw new WebhookInvalid("no signature of the webhook verifies");
  try {
    return JSON.parse(raw.toString("utf8"));
  } catch {
    throw new WebhookInvalid("the webhook is signed and is not JSON");
  }
}

/** What a private key signs with, and under which name (RFC 9421 §3.3). */
function signingOf(key) {
  const curve = key.asymmetricKeyDetails?.namedCurve;
  if (key.asymmetricKeyType === "ed25519") {
    return { algorithm: "ed25519", sign: (text) => sign(null, text, key) };
  }
  if (key.asymmetricKeyType === "ec" && curve === "prime256v1") {
    const sideBySide = { key, dsaEncoding: "ieee-p1363" };
    return { algorithm: "ecdsa-p256-sha256", sign: (text) => sign("sha256", text, sideBySide) };
  }
  if (key.asymmetricKeyType === "rsa") {
    const pss = { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 64 };
    return { algorithm: "rsa-pss-sha512", sign: (text) => sign("sha512", text, pss) };
  }
  throw new TypeError("the private key is none of Ed25519, EC P-256 and RSA");
}

/** Return what is sent, and as what: bytes as the file they are, and all else as JSON. */
function contentOf(body, type) {
  if (body === undefined) return { body: "", type: JSON_TYPE };
  if (!(body instanceof Uint8Array)) return { body: JSON.stringify(body), type: JSON_TYPE };
  if (type === undefined) throw new TypeError("a file goes with its contentType");
  return { body, type };
}

function digestOf(body) {
  return `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;
}

function readAnswer(answer, said) {
  let read;
  try {
    read = said === "" ? undefined : JSON.parse(said);
  } catch {
    read = null;
  }
  if (answer.ok) {
    if (read !== null) return { done: true, reply: read };
    return { again: true, reason: `${answer.status} with an unreadable body`, waitS: 0 };
  }
  const isOurs = typeof read === "object" && read !== null && "code" in read;
  const problem = isOurs ? read : { code: "unreadable_reply", advice: "not from the platform" };
  const refused = new Refused(answer.status, problem);
  const given = answer.headers.get("retry-after") ?? "";
  const wait = { reason: refused.message, waitS: /^\d+$/.test(given) ? Number(given) : 0 };
  if (answer.status === 429) return { again: true, refused, ...wait };
  if (answer.status >= 500 || problem.code === "idempotency.in_flight") {
    return { again: true, ...wait };
  }
  return { refused, ...wait };
}

function targetOf(template, path, query) {
  const used = template.replace(/\{(\w+)\}/g, (_, name) => {
    const id = path[name];
    if (typeof id !== "string" || id.replaceAll(".", "") === "") {
      throw new TypeError(`not an id: ${name}=${id}`);
    }
    return encodeURIComponent(id);
  });
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === null) continue;
    asked.set(name, typeof value === "object" ? JSON.stringify(value) : String(value));
  }
  return asked.toString() === "" ? used : `${used}?${asked}`;
}

function pauseMs(attempt, waitS) {
  const jittered = 0.5 * 2 ** (attempt - 1) * (0.75 + Math.random() / 2);
  return 1000 * Math.max(Math.min(PAUSE_MAX_S, jittered), Math.min(waitS, PAUSE_MAX_S));
}

function lowered(headers) {
  const pairs = typeof headers.entries === "function" ? headers.entries() : Object.entries(headers);
  return Object.fromEntries([...pairs].map(([name, value]) => [name.toLowerCase(), value]));
}

function hmacCheck(secret) {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  return (given, signed) => {
    const made = createHmac("sha256", key).update(signed).digest();
    return made.length === given.length && timingSafeEqual(made, given);
  };
}

function ed25519Check(publicKey) {
  const raw = Buffer.from(publicKey.replace(/^whpk_/, ""), "base64");
  const der = Buffer.concat([ED25519_HEAD, raw]);
  const key = createPublicKey({ key: der, format: "der", type: "spki" });
  return (given, signed) => verify(null, signed, key, given);
}

const PHONE = "TONGBAO-DEVICE";

/** One phone and whoever is logged in on it: every request is signed by the phone's own key. */
export class Person {
  #key;

  constructor(url, { privateKey, name = "phone", mode = "live", session, timeoutMs = 30_000 }) {
    this.#key = createPrivateKey(privateKey);
    if (!["ed25519", "ec"].includes(this.#key.asymmetricKeyType)) {
      throw new TypeError("the phone's key is Ed25519 or EC on P-256");
    }
    const publicKey = createPublicKey(this.#key).export({ type: "spki", format: "pem" });
    this.origin = new URL(url).origin;
    this.session = session;
    this.mode = mode;
    this.device = { public_key: publicKey, name };
    this.timeoutMs = timeoutMs;
  }

  /** Have a code sent to an address; the answer is the same whether anybody has it. */
  askCode(contact, purpose) {
    return this.call("POST /v1/me/codes", { body: { contact, purpose, ...this.#where() } });
  }

  /** Make an account with an address that a code has proved, and log in. */
  register(contact, password, { codeId, code, consents = [] }) {
    const fields = { contact, password, code_id: codeId, code, consents };
    return this.#enter("POST /v1/me/registrations", fields);
  }

  /** Log in; from a phone that is not bound yet with a second proof. */
  logIn(contact, password, second) {
    const fields = { contact, password, ...(second === undefined ? {} : { second }) };
    return this.#enter("POST /v1/me/sessions", fields);
  }

  /** End the session. */
  async logOut() {
    await this.call("POST /v1/me/log_out");
    this.session = undefined;
  }

  /** Do one operation of a person's own; nothing is repeated by itself. */
  async call(operation, { path = {}, query = {}, body } = {}) {
    const [method, template] = operation.split(" ");
    if (!/^\/v1\/me/.test(template ?? "")) throw new TypeError(`no such operation: ${operation}`);
    const target = targetOf(template, path, query);
    const content = body === undefined ? "" : JSON.stringify(body);
    const headers = { accept: JSON_TYPE, authorization: this.#authorization(method, target, content) };
    if (content) headers["content-type"] = JSON_TYPE;
    let reply;
    let text;
    try {
      const signal = AbortSignal.timeout(this.timeoutMs);
      const asked = { method, headers, body: content || undefined, redirect: "manual", signal };
      reply = await fetch(this.origin + target, asked);
      text = await reply.text();
    } catch (failure) {
      throw new Unanswered(failure.name);
    }
    let said;
    try {
      said = text ? JSON.parse(text) : undefined;
    } catch {
      throw new Unanswered(`${reply.status} with an unreadable body`);
    }
    if (reply.ok) return said;
    if (reply.status >= 500 || typeof said?.code !== "string") throw new Unanswered(`${reply.status}`);
    throw new Refused(reply.status, said);
  }

  async #enter(operation, fields) {
    this.session = undefined;
    const opened = await this.call(operation, { body: { ...fields, ...this.#where() } });
    this.session = opened.token;
    return opened;
  }

  #where() {
    return { device: this.device, mode: this.mode };
  }

  #authorization(method, target, content) {
    const at = String(Math.floor(Date.now() / 1000));
    const nonce = randomBytes(18).toString("base64url");
    const digest = createHash("sha256").update(content).digest("hex");
    const token = this.session ?? "";
    const text = [`${PHONE} v1`, method, target, at, nonce, digest, token, ""].join("\n");
    const isEc = this.#key.asymmetricKeyType === "ec";
    const key = isEc ? { key: this.#key, dsaEncoding: "ieee-p1363" } : this.#key;
    const signature = sign(isEc ? "sha256" : null, Buffer.from(text), key).toString("base64");
    const session = token ? `session=${token},` : "";
    return `${PHONE} ${session}timestamp=${at},nonce=${nonce},signature=${signature}`;
  }
}
