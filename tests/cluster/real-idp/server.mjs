#!/usr/bin/env node
// A REAL OAuth 2.0 / OpenID server (panva's certified `oidc-provider`) on loopback, for evermint's
// cluster tests.  The protocol (client auth, grants, rotation, reuse detection, expiry) is oidc-provider's;
// this file only configures it, stores its tokens, counts what it did, and offers an /admin API.
// requests.mjs keeps when each token request arrived and ended, and holds those that must wait.
//
//   node server.mjs [--port 9400] [--host 127.0.0.1] [--access-ttl 30] [--refresh-ttl 3600] [--rt-clients 50]
//                   [--keys ./keys] [--log events.ndjson] [--state state.json] [--consume atomic|stock]
//                   [--tls-cert f --tls-key f] [--tenant contoso] [--store-delay 0] [--quiet]
// Every flag may also be given as env REAL_IDP_<FLAG> (REAL_IDP_ACCESS_TTL=5).  See README.md.
import fs from 'node:fs';
import path from 'node:path';
import http from 'node:http';
import https from 'node:https';
import crypto from 'node:crypto';
import { parseArgs, promisify } from 'node:util';
import { Holds, Requests } from './requests.mjs';

process.env.NODE_ENV ??= 'production';
const OPTS = {
  port: '9400', host: '127.0.0.1', issuer: '', 'access-ttl': '30', 'refresh-ttl': '3600', 'rt-clients': '50',
  keys: path.join(import.meta.dirname, 'keys'), log: '', state: '', consume: 'atomic',
  'tls-cert': '', 'tls-key': '', tenant: 'contoso', 'store-delay': '0',
};
const spec = { quiet: { type: 'boolean', default: !!process.env.REAL_IDP_QUIET } };
for (const [k, d] of Object.entries(OPTS)) {
  spec[k] = { type: 'string', default: process.env[`REAL_IDP_${k.toUpperCase().replaceAll('-', '_')}`] ?? d };
}
const opt = parseArgs({ options: spec }).values;
const PORT = Number(opt.port);
const TLS = opt['tls-cert'] !== '';
const ISSUER = opt.issuer || `${TLS ? 'https' : 'http'}://${opt.host}:${PORT}`;
if (!/^(127\.|localhost$|\[?::1)/.test(opt.host)) throw new Error('loopback addresses only');

// oidc-provider warns that it wants Node 22; 9.13.3 was tried and works on 20.20 (needs crypto.hash).
const { warn } = console;
console.warn = (...a) => { if (!/Unsupported runtime|already parsed request body/.test(a.join(' '))) warn(...a); };
const { Provider, errors } = await import('oidc-provider');
const { jwtVerify, decodeJwt } = await import('jose');

// ------------------------------------------------------------------ what happened: events and counters
const started = new Date().toISOString();
let seq = 0;
let events = [];                    // ring of the last 200 000 events
let counts = {};                    // client -> grant -> {ok, <oauth error>: n, injected: n}
let families = new Map();           // grantId -> see family()
const issuedRt = new Map();         // hash of every refresh token ever issued -> {grant_id, generation, uses}
const requests = new Requests();    // every token request, with its times
const holds = new Holds();          // those that wait for a release
const logFd = opt.log ? fs.openSync(opt.log, 'a') : null;
const short = (s) => (s ? crypto.createHash('sha256').update(s).digest('hex').slice(0, 12) : undefined);
function event(type, fields = {}) {
  const e = { seq: ++seq, t: new Date().toISOString(), type, ...fields };
  events.push(e);
  if (events.length > 200_000) events = events.slice(-150_000);
  const line = `${JSON.stringify(e)}\n`;
  if (!opt.quiet) process.stdout.write(line);
  if (logFd !== null) fs.writeSync(logFd, line);
  return e;
}
function count(client, grant, result) {
  const c = ((counts[client ?? '?'] ??= {})[grant ?? '?'] ??= { requests: 0 });
  if (result === 'request') c.requests += 1; else c[result] = (c[result] ?? 0) + 1;
}
function family(grantId, client) {
  if (!families.has(grantId)) {
    families.set(grantId, {
      grant_id: grantId, client, generation: 0, mints: {}, forks: 0, reuse_detected: 0, revoked_at: null,
    });
  }
  return families.get(grantId);
}

// ------------------------------------------------------------------ token store (one process, in memory)
// oidc-provider's own memory adapter is an LRU of 1000 entries: under load it silently evicts live
// refresh tokens.  This one evicts nothing but what has expired.
let store = new Map();              // "Model:id" -> payload (with .__exp ms)
const byUserCode = new Map(); const byUid = new Map();
const GRANTABLE = ['AccessToken', 'RefreshToken', 'DeviceCode', 'AuthorizationCode'];
const db = () => (Number(opt['store-delay']) ? sleep(Number(opt['store-delay'])) : undefined);  // a slow database
class Adapter {
  constructor(model) { this.model = model; }
  async upsert(id, payload, expiresIn) {
    await db();
    payload.__exp = expiresIn ? Date.now() + (expiresIn + 60) * 1000 : null;
    store.set(`${this.model}:${id}`, payload);
    if (payload.userCode) byUserCode.set(payload.userCode, id);
    if (this.model === 'Session') byUid.set(payload.uid, id);
  }
  async find(id) { await db(); const p = store.get(`${this.model}:${id}`); return p && { ...p }; }
  async findByUserCode(c) { return this.find(byUserCode.get(c)); }
  async findByUid(u) { return this.find(byUid.get(u)); }
  async destroy(id) { store.delete(`${this.model}:${id}`); }
  async consume(id) {
    await db();
    const p = store.get(`${this.model}:${id}`);
    // Two requests with the same refresh token can both pass oidc-provider's "already used?" check and
    // meet here.  `atomic` (default): the second is reuse, as at a server with a transactional store:
    // the grant dies.  `stock`: what oidc-provider does by itself, both win and the family forks.
    if (opt.consume === 'atomic' && this.model === 'RefreshToken' && (!p || p.consumed)) {
      if (p) await revokeGrant(p.grantId, 'reuse_in_race');
      throw new errors.InvalidGrant('refresh token already used');
    }
    if (p) p.consumed = Math.floor(Date.now() / 1000);
  }
  async revokeByGrantId(grantId) {
    for (const [k, p] of store) if (p.grantId === grantId && GRANTABLE.includes(k.split(':')[0])) store.delete(k);
  }
}
async function revokeGrant(grantId, why) {
  for (const m of GRANTABLE) await new Adapter(m).revokeByGrantId(grantId);
  store.delete(`Grant:${grantId}`);
  const f = family(grantId);
  f.revoked_at ??= new Date().toISOString();
  event('grant_revoked', { grant_id: grantId, client: f.client, why });
}
setInterval(() => {
  const now = Date.now();
  for (const [k, p] of store) if (p.__exp && p.__exp < now) store.delete(k);
}, 5000).unref();
if (opt.state && fs.existsSync(opt.state)) {     // survive a restart of the IdP itself
  const s = JSON.parse(fs.readFileSync(opt.state)); for (const [k, v] of s.issuedRt) issuedRt.set(k, v);
  store = new Map(s.store); families = new Map(s.families); counts = s.counts; events = s.events; seq = s.seq;
}
const saveState = () => opt.state && fs.writeFileSync(opt.state, JSON.stringify({
  store: [...store], families: [...families], issuedRt: [...issuedRt], counts, events, seq,
}), { mode: 0o600 });

// ------------------------------------------------------------------ keys and clients
fs.mkdirSync(opt.keys, { recursive: true, mode: 0o700 });
const generate = promisify(crypto.generateKeyPair);
async function keypair(name, type, o) {   // made on first start; the private halves are for the tests' clients
  const f = path.join(opt.keys, `${name}.pem`);
  if (!fs.existsSync(f)) {
    fs.writeFileSync(f, (await generate(type, o)).privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
  }
  const pub = crypto.createPublicKey(fs.readFileSync(f));
  const jwk = { ...pub.export({ format: 'jwk' }), kid: name, use: 'sig' };
  return { pub, jwk, priv: { ...crypto.createPrivateKey(fs.readFileSync(f)).export({ format: 'jwk' }), kid: name, use: 'sig' } };
}
const [idpKey, clientRsa, clientEc, saKey] = await Promise.all([
  keypair('idp-signing', 'rsa', { modulusLength: 2048 }), keypair('client-rsa', 'rsa', { modulusLength: 2048 }),
  keypair('client-ec', 'ec', { namedCurve: 'P-256' }), keypair('service-account', 'rsa', { modulusLength: 2048 }),
]);

const CC = 'client_credentials'; const RT = 'refresh_token';
const DEV = 'urn:ietf:params:oauth:grant-type:device_code';
const JWTB = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const base = { redirect_uris: [], response_types: [], scope: 'openid offline_access api' };
const SA = 'robot@evermint-test.iam.gserviceaccount.test';
const clients = [
  { ...base, client_id: 'cc-basic', client_secret: 'cc-basic-secret', token_endpoint_auth_method: 'client_secret_basic', grant_types: [CC] },
  { ...base, client_id: 'cc-post', client_secret: 'cc-post-secret', token_endpoint_auth_method: 'client_secret_post', grant_types: [CC] },
  { ...base, client_id: 'cc-rsa', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'RS256', jwks: { keys: [clientRsa.jwk] }, grant_types: [CC] },
  { ...base, client_id: 'cc-ec', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'ES256', jwks: { keys: [clientEc.jwk] }, grant_types: [CC] },
  { ...base, client_id: 'rt-basic', client_secret: 'rt-basic-secret', token_endpoint_auth_method: 'client_secret_basic', grant_types: [RT, DEV] },
  { ...base, client_id: 'rt-rsa', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: 'RS256', jwks: { keys: [clientRsa.jwk] }, grant_types: [RT, DEV] },
  { ...base, client_id: 'rt-public', token_endpoint_auth_method: 'none', grant_types: [RT, DEV] },
  { ...base, client_id: 'rt-norotate', client_secret: 'rt-norotate-secret', token_endpoint_auth_method: 'client_secret_post', grant_types: [RT, DEV] },
  // Google-style: the "client" is the service account; it authenticates by the assertion alone.
  { ...base, client_id: SA, token_endpoint_auth_method: 'none', grant_types: [JWTB] },
];
for (let i = 0; i < Number(opt['rt-clients']); i += 1) {   // rt-000, rt-001, ... for many-credential runs
  const id = `rt-${String(i).padStart(3, '0')}`;
  clients.push({ ...base, client_id: id, client_secret: `${id}-secret`, token_endpoint_auth_method: 'client_secret_basic', grant_types: [RT, DEV] });
}
const ttl = {};                     // client -> {access, refresh}; POST /admin/ttl changes it while running
const accessTtl = (ctx, tok, client) => ttl[client.clientId]?.access ?? Number(opt['access-ttl']);
const refreshTtl = (ctx, tok, client) => ttl[client.clientId]?.refresh ?? Number(opt['refresh-ttl']);

// ------------------------------------------------------------------ the provider
const provider = new Provider(ISSUER, {
  adapter: Adapter,
  clients,
  jwks: { keys: [{ ...idpKey.priv, alg: 'RS256' }] },
  cookies: { keys: [crypto.randomBytes(32).toString('hex')] },
  scopes: ['openid', 'offline_access', 'api'],
  clockTolerance: 5,
  enableHttpPostMethods: false,
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true, allowedPolicy: async () => true },
    revocation: { enabled: true },
  },
  ttl: { AccessToken: accessTtl, ClientCredentials: accessTtl, RefreshToken: refreshTtl, Grant: () => 14 * 86400, DeviceCode: 600, IdToken: 3600 },
  rotateRefreshToken: (ctx) => ctx.oidc.client.clientId !== 'rt-norotate',
  expiresWithSession: async () => false,
  findAccount: async (ctx, sub) => ({ accountId: sub, claims: async () => ({ sub }) }),
});

const entra = `/${opt.tenant}/oauth2/v2.0/token`;     // the same token endpoint also under Entra's path
const ownAudience = provider.OIDCContext.prototype.clientJwtAuthExpectedAudience;
provider.OIDCContext.prototype.clientJwtAuthExpectedAudience = function audiences() {
  return ownAudience.call(this).add(ISSUER + entra);
};

// RFC 7523 authorization grant as Google uses it: iss, scope, aud, iat, exp, RS256, exp-iat <= 1 h.
// The signature and the claims are checked by `jose`; the error texts follow Google's.
provider.registerGrantType(JWTB, async (ctx) => {
  const bad = (d) => Object.assign(new errors.InvalidGrant(d), { error_description: d });
  const { assertion } = ctx.oidc.params;
  let claims;
  try {
    ({ payload: claims } = await jwtVerify(assertion ?? '', saKey.pub, {
      algorithms: ['RS256'], issuer: SA, audience: [`${ISSUER}/token`, ISSUER, 'https://oauth2.googleapis.com/token'], clockTolerance: 5,
      requiredClaims: ['iss', 'aud', 'iat', 'exp', 'scope'],
    }));
  } catch (e) {
    throw bad(e.code === 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' ? 'Invalid JWT Signature.' : `Invalid JWT: ${e.message}`);
  }
  const now = Date.now() / 1000;
  if (claims.exp - claims.iat > 3600 || claims.iat > now + 5) {
    throw bad('Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values in the JWT claim.');
  }
  const at = new provider.ClientCredentials({ client: ctx.oidc.client, scope: claims.scope });
  const access_token = await at.save();
  ctx.body = { access_token, expires_in: at.expiration, token_type: 'Bearer' };
}, ['assertion', 'scope']);

// ------------------------------------------------------------------ observing every token request
provider.on('server_error', (ctx, e) => event('server_error', { error: String(e?.stack ?? e) }));
provider.on('grant.revoked', (ctx, grantId) => {
  const f = family(grantId, ctx.oidc?.client?.clientId);
  f.revoked_at ??= new Date().toISOString();
  event('grant_revoked', { grant_id: grantId, client: f.client, why: ctx.oidc?.route });
});
function observe(req, record, status, body, ms, delivered) {
  const { client, grant } = record;
  const b = body && typeof body === 'object' ? body : {};
  const e = {
    request: record.seq, client, grant, status, ms, delivered, arrived_ms: record.arrived_ms,
    presented: record.presented ?? undefined, error: b.error, detail: req.errDetail,
    expires_in: b.expires_in, access: short(b.access_token), issued: short(b.refresh_token),
  };
  if (record.use) { e.grant_id = record.grant_id; e.presented_generation = record.presented_generation; e.use = record.use; }
  if (status === 200) {
    count(client, grant, 'ok');
    const rt = b.refresh_token && store.get(`RefreshToken:${b.refresh_token}`);
    if (rt && rt.rotations !== undefined) {
      // generation 0 = the first token of a grant; every successful rotation is one more.
      const f = family(rt.grantId, client);
      const g = rt.rotations ?? 0;
      e.grant_id = rt.grantId; e.generation = g;
      f.mints[g] = (f.mints[g] ?? 0) + 1;
      if (!issuedRt.has(e.issued)) issuedRt.set(e.issued, { grant_id: rt.grantId, generation: g, uses: 0 });
      f.generation = Math.max(f.generation, g);
      if (f.mints[g] > 1 && grant === RT && client !== 'rt-norotate') {
        f.forks += 1;
        event('fork_detected', { client, grant_id: rt.grantId, generation: g, presented: e.presented });
      }
    }
  } else {
    count(client, grant, b.error ?? `http_${status}`);
    if (req.reuse) {
      const f = family(req.reuse, client);
      f.reuse_detected += 1;
      e.grant_id = req.reuse;
      count(client, grant, 'reuse_detected');
      event('reuse_detected', { client, grant_id: req.reuse, presented: e.presented, generation: f.generation });
    }
  }
  const { issued = null, access = null, generation = null, error = null, detail = null, grant_id = record.grant_id } = e;
  requests.served(record, { status, issued, access, generation, error, detail, grant_id, reuse: !!req.reuse });
  event('token', e);
}
provider.on('grant.error', (ctx, err) => {
  ctx.req.errDetail = err.error_detail;
  if (/already used/.test(err.error_detail ?? '')) ctx.req.reuse = ctx.req.presentedGrant ?? '?';
});

// ------------------------------------------------------------------ fault injection, applied to /token only
// {client?, grant?, mode, ms?, status?, body?, headers?, count?}   mode:
//   delay_before  wait ms, then serve            delay_after  serve (rotate!), wait ms, then answer
//   drop_before   close, nothing happened        drop_after   serve (rotate!), then close without answering
//   status        answer status/body/headers without serving (429 with Retry-After, 503, ...)
//   hold_before   wait for POST /admin/release, then serve
//   hold_after    serve (rotate!), wait for POST /admin/release, then answer
const MODES = ['delay_before', 'delay_after', 'drop_before', 'drop_after', 'status', 'hold_before', 'hold_after'];
let faults = [];
function takeFault(client, grant) {
  const i = faults.findIndex((f) => (!f.client || f.client === client) && (!f.grant || f.grant === grant));
  if (i < 0) return null;
  const f = faults[i];
  if (f.count !== undefined && --f.count <= 0) faults.splice(i, 1);
  return f;
}
const sleep = (ms) => new Promise((r) => { setTimeout(r, ms); });

// ------------------------------------------------------------------ HTTP front
const callback = provider.callback();
const readAll = async (req) => { const c = []; for await (const x of req) c.push(x); return Buffer.concat(c).toString(); };
const json = (res, status, body, headers = {}) => {
  res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers });
  res.end(`${JSON.stringify(body)}\n`);
};
function clientOf(req, form) {
  if (form.get('client_id')) return form.get('client_id');
  const m = /^basic (.+)$/i.exec(req.headers.authorization ?? '');
  if (m) return decodeURIComponent(Buffer.from(m[1], 'base64').toString().split(':')[0]);
  try { return decodeJwt(form.get('client_assertion') ?? '').sub; } catch { return undefined; }
}

async function token(req, res) {
  const arrived = requests.moment();
  const form = new URLSearchParams(await readAll(req));
  const grant = form.get('grant_type');
  if (grant === JWTB && !clientOf(req, form)) {       // Google sends no client authentication at all
    try { form.set('client_id', decodeJwt(form.get('assertion') ?? '').iss ?? ''); } catch { /* provider answers */ }
  }
  // Entra puts the audience in `scope` (…/.default); oidc-provider knows only its own scopes.
  if (grant === CC && form.get('scope')?.endsWith('/.default')) form.delete('scope');
  req.idpClient = clientOf(req, form);
  req.presentedGrant = store.get(`RefreshToken:${form.get('refresh_token')}`)?.grantId;
  count(req.idpClient, grant, 'request');

  const fault = takeFault(req.idpClient, grant);
  const record = open(arrived, req, form, fault);
  // `close` without an earlier end: the client hung up.  What it asked for is served all the same, as at
  // any server that does not look at its sockets while it works.
  const end = (how) => { if (requests.end(record, how)) event('token_end', record); };
  const drop = () => { end('dropped'); req.socket.destroy(); };
  if (req.socket.destroyed) end('client_gone'); else res.once('close', () => end('client_gone'));

  if (fault) {
    count(req.idpClient, grant, 'injected');
    event('fault', { request: record.seq, mode: fault.mode, client: req.idpClient, grant });
    if (fault.mode === 'delay_before') await sleep(fault.ms ?? 1000);
    if (fault.mode === 'hold_before' && await holds.hold(record, fault.mode) === 'drop') { drop(); return; }
    if (fault.mode === 'drop_before') { drop(); return; }
    if (fault.mode === 'status') {
      record.status = fault.status ?? 503;
      end('answered');
      json(res, record.status, fault.body ?? { error: 'temporarily_unavailable' }, fault.headers);
      return;
    }
  }
  req.body = Object.fromEntries(form);                // oidc-provider takes an already read body from here
  req.url = '/token';
  const chunks = []; const send = res.end.bind(res);
  // koa answers nothing to a socket that was closed, and then nobody would count what it has just rotated.
  const { socket } = res; res.socket = null;
  res.write = (c) => { chunks.push(Buffer.from(c)); return true; };
  res.end = async (c) => {                            // hold the answer until it has been counted
    res.socket = socket;
    if (c && typeof c !== 'function') chunks.push(Buffer.from(c));
    const raw = Buffer.concat(chunks);
    let body; try { body = JSON.parse(raw); } catch { body = undefined; }
    const lost = fault?.mode === 'drop_after';
    observe(req, record, res.statusCode, body, Math.round(performance.now() - arrived.ms), !lost);
    if (fault?.mode === 'delay_after') await sleep(fault.ms ?? 1000);
    if (fault?.mode === 'hold_after' && await holds.hold(record, fault.mode) === 'drop') { drop(); return; }
    if (lost) { drop(); return; }
    // The end is noted before the first byte leaves, so that a client never overlaps its own next request.
    if (res.writable && !socket.destroyed) { end('answered'); send(raw); }
  };
  callback(req, res);
}

// Opens the record of a token request; a known refresh token counts as shown, whatever comes of it.
function open(arrived, req, form, fault) {
  const presented = short(form.get('refresh_token'));
  const known = issuedRt.get(presented);              // also tokens whose family is long dead
  if (known) known.uses += 1;
  return requests.open(arrived, {
    client: req.idpClient ?? null, grant: form.get('grant_type'), fault: fault?.mode ?? null, presented: presented ?? null,
    grant_id: known?.grant_id ?? null, presented_generation: known?.generation ?? null, use: known?.uses ?? null,
  });
}

// A first refresh token: what a browser user would have consented to, done by the operator.
async function newGrant(clientId, sub, scope) {
  const grant = new provider.Grant({ accountId: sub, clientId });
  grant.addOIDCScope(scope);
  return grant.save();
}
async function admin(req, res, url) {
  const body = req.method === 'POST' ? JSON.parse((await readAll(req)) || '{}') : {};
  switch (`${req.method} ${url.pathname}`) {
    case 'GET /admin/health': return json(res, 200, { ok: true, issuer: ISSUER });
    case 'GET /admin/clients': return json(res, 200, clients.map((c) => ({ client_id: c.client_id, client_secret: c.client_secret, auth: c.token_endpoint_auth_method, grants: c.grant_types })));
    case 'GET /admin/stats': {
      const fam = [...families.values()];
      const sum = (k) => fam.reduce((a, f) => a + f[k], 0);
      return json(res, 200, {
        started, issuer: ISSUER, seq, consume: opt.consume, counts,
        totals: { families: fam.length, reuse_detected: sum('reuse_detected'), forks: sum('forks'), revoked: fam.filter((f) => f.revoked_at).length, overlaps: requests.overlaps().length },
        ...(url.searchParams.has('families') && { families: fam }),
        reuse_events: events.filter((e) => e.type === 'reuse_detected' || e.type === 'fork_detected').slice(-1000),
      });
    }
    case 'GET /admin/families': {
      const c = url.searchParams.get('client');
      return json(res, 200, [...families.values()].filter((f) => !c || f.client === c));
    }
    case 'GET /admin/events': {
      const since = Number(url.searchParams.get('since') ?? 0); const type = url.searchParams.get('type');
      res.writeHead(200, { 'content-type': 'application/x-ndjson' });
      return res.end(events.filter((e) => e.seq > since && (!type || e.type === type)).map((e) => `${JSON.stringify(e)}\n`).join(''));
    }
    case 'POST /admin/seed': {                        // {client_id, sub?, scope?, n?} -> refresh tokens, no device flow
      const out = [];
      for (let i = 0; i < (body.n ?? 1); i += 1) {
        const client = await provider.Client.find(body.client_id);
        if (!client) return json(res, 404, { error: 'no such client' });
        const sub = body.sub ?? `user-${crypto.randomUUID().slice(0, 8)}`; const scope = body.scope ?? 'openid offline_access api';
        const grantId = await newGrant(body.client_id, sub, scope);
        const rt = new provider.RefreshToken({ client, accountId: sub, grantId, scope, gty: 'device_code', rotations: 0, authTime: Math.floor(Date.now() / 1000) });
        const refresh_token = await rt.save();
        family(grantId, body.client_id).mints[0] = 1;
        issuedRt.set(short(refresh_token), { grant_id: grantId, generation: 0, uses: 0 });
        event('seeded', { client: body.client_id, grant_id: grantId, issued: short(refresh_token) });
        out.push({ refresh_token, grant_id: grantId, sub, scope });
      }
      return json(res, 200, out);
    }
    case 'POST /admin/approve': {                     // {user_code, sub?} -> what the person at the browser would do
      const code = await provider.DeviceCode.findByUserCode(String(body.user_code ?? '').replace(/\W/g, '').toUpperCase());
      if (!code) return json(res, 404, { error: 'no such user_code' });
      const sub = body.sub ?? 'alice'; const scope = code.params.scope ?? 'openid';
      Object.assign(code, { accountId: sub, scope, authTime: Math.floor(Date.now() / 1000), grantId: await newGrant(code.clientId, sub, scope) });
      await code.save();
      return json(res, 200, { approved: true, client_id: code.clientId, grant_id: code.grantId });
    }
    case 'POST /admin/ttl': ttl[body.client_id] = { access: body.access, refresh: body.refresh }; return json(res, 200, ttl);
    case 'POST /admin/revoke': await revokeGrant(body.grant_id, 'admin'); return json(res, 200, { revoked: body.grant_id });
    case 'POST /admin/fault':
      if (!MODES.includes(body.mode)) return json(res, 400, { error: 'no such mode' });
      faults.push(body); return json(res, 200, faults);
    case 'DELETE /admin/fault': faults = []; return json(res, 200, faults);
    case 'GET /admin/held': return json(res, 200, await holds.wait(url.searchParams.get('client'), Number(url.searchParams.get('wait_ms') ?? 0)));
    case 'POST /admin/release': return json(res, 200, { released: holds.release(body.client, body.as) });
    case 'GET /admin/history': return json(res, 200, requests.history({ client: url.searchParams.get('client'), since: Number(url.searchParams.get('since') ?? 0) }));
    case 'GET /admin/overlaps': {                     // ?by=client (default) or family
      const by = url.searchParams.get('by') ?? 'client';
      return ['client', 'family'].includes(by) ? json(res, 200, requests.overlaps(by)) : json(res, 400, { error: 'by client or family' });
    }
    case 'POST /admin/reset': counts = {}; events = []; requests.reset(); for (const f of families.values()) { f.mints = {}; f.forks = 0; f.reuse_detected = 0; } return json(res, 200, { ok: true });
    default: return json(res, 404, { error: 'not found' });
  }
}

const front = async (req, res) => {
  try {
    const url = new URL(req.url, ISSUER);
    if (url.pathname.startsWith('/admin/')) await admin(req, res, url);
    else if (req.method === 'POST' && (url.pathname === '/token' || url.pathname === entra)) await token(req, res);
    else callback(req, res);
  } catch (e) {
    event('front_error', { error: String(e?.stack ?? e) });
    if (!res.headersSent) json(res, 500, { error: 'server_error' });
  }
};
const server = TLS
  ? https.createServer({ cert: fs.readFileSync(opt['tls-cert']), key: fs.readFileSync(opt['tls-key']) }, front)
  : http.createServer(front);
server.keepAliveTimeout = 65_000;
server.listen(PORT, opt.host, () => event('listening', { issuer: ISSUER, pid: process.pid, startup_ms: Math.round(performance.now()) }));
for (const s of ['SIGTERM', 'SIGINT']) process.on(s, () => { saveState(); process.exit(0); });
