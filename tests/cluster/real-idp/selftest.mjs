// Starts the server on a free port and proves what the tests rely on.  Bounded: about a hundred requests, < 20 s.
//   node selftest.mjs          prints one line per check, then "N passed, N failed"
import { spawn, execFileSync } from 'node:child_process';
import net from 'node:net';
import path from 'node:path';

const port = await new Promise((r) => { const s = net.createServer().listen(0, '127.0.0.1', () => { const p = s.address().port; s.close(() => r(p)); }); });
const B = `http://127.0.0.1:${port}`; const here = import.meta.dirname;
const child = spawn(process.execPath, ['server.mjs', '--quiet', '--port', String(port), '--access-ttl', '2'], { cwd: here, stdio: 'inherit' });
process.on('exit', () => child.kill());
setTimeout(() => { console.log('FAIL not done within 60 s'); process.exit(2); }, 60_000).unref();
for (let i = 0; ; i += 1) {
  try { if ((await fetch(`${B}/admin/health`)).ok) break; } catch { if (i > 100) throw new Error('no start'); }
  await new Promise((r) => { setTimeout(r, 100); });
}
let pass = 0; let fail = 0;
const check = (name, ok, got) => { if (ok) pass += 1; else fail += 1; console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}${ok ? '' : ` ${JSON.stringify(got)}`}`); };
const basic = (c) => ({ authorization: `Basic ${Buffer.from(`${c}:${c}-secret`).toString('base64')}` });
const token = async (form, headers = {}) => { const r = await fetch(`${B}/token`, { method: 'POST', headers, body: new URLSearchParams(form) }); return { status: r.status, ...(await r.json()) }; };
const admin = async (p, body, method = body ? 'POST' : 'GET') => (await fetch(B + p, { method, body: body && JSON.stringify(body) })).json();
const seed = async (c) => (await admin('/admin/seed', { client_id: c, scope: 'offline_access api' }))[0].refresh_token;
const refresh = (c, t) => token({ grant_type: 'refresh_token', refresh_token: t }, basic(c));
const active = async (t) => (await (await fetch(`${B}/token/introspection`, { method: 'POST', headers: basic('cc-basic'), body: new URLSearchParams({ token: t }) })).json()).active;
const sign = (...a) => execFileSync(process.execPath, [path.join(here, 'assertion.mjs'), ...a], { cwd: here }).toString().trim();
const wait = (ms) => new Promise((r) => { setTimeout(r, ms); });

let r = await token({ grant_type: 'client_credentials', scope: 'api' }, basic('cc-basic'));
check('client_credentials, basic', r.status === 200 && r.expires_in === 2 && r.token_type === 'Bearer', r);
check('access token active at once', await active(r.access_token) === true);
await wait(3100);
check('access token dead after expires_in', await active(r.access_token) === false);
r = await token({ grant_type: 'client_credentials' }, { authorization: `Basic ${Buffer.from('cc-basic:x').toString('base64')}` });
check('wrong secret is 401 invalid_client', r.status === 401 && r.error === 'invalid_client', r);

const cat = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const ca = sign('client', 'keys/client-rsa.pem', 'cc-rsa', `${B}/token`);
r = await token({ grant_type: 'client_credentials', client_assertion_type: cat, client_assertion: ca });
check('private_key_jwt RS256', r.status === 200, r);
r = await token({ grant_type: 'client_credentials', client_assertion_type: cat, client_assertion: ca });
check('replayed client assertion refused', r.status === 401, r);
r = await token({ grant_type: 'client_credentials', client_assertion_type: cat, client_assertion: sign('client', 'keys/client-ec.pem', 'cc-ec', B) });
check('private_key_jwt ES256', r.status === 200, r);

const sa = 'robot@evermint-test.iam.gserviceaccount.test'; const jwtb = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
r = await token({ grant_type: jwtb, assertion: sign('grant', 'keys/service-account.pem', sa, `${B}/token`, 'api') });
check('jwt-bearer grant', r.status === 200 && r.token_type === 'Bearer', r);
r = await token({ grant_type: jwtb, assertion: sign('grant', 'keys/client-rsa.pem', sa, `${B}/token`, 'api') });
check('jwt-bearer with the wrong key', r.status === 400 && r.error === 'invalid_grant', r);
r = await token({ grant_type: jwtb, assertion: sign('grant', 'keys/service-account.pem', sa, `${B}/token`, 'api', '7200') });
check('jwt-bearer longer than an hour', r.status === 400 && r.error === 'invalid_grant', r);

const first = JSON.parse(execFileSync('bash', ['first-refresh-token.sh', B], { cwd: here }));
check('first refresh token by device flow', !!first.refresh_token, first);
let a = await refresh('rt-basic', first.refresh_token); const second = await refresh('rt-basic', a.refresh_token);
check('rotates', a.status === 200 && second.status === 200 && a.refresh_token !== first.refresh_token && second.refresh_token !== a.refresh_token, [a, second]);
r = await refresh('rt-basic', a.refresh_token);
check('reuse is 400 invalid_grant', r.status === 400 && r.error === 'invalid_grant', r);
r = await refresh('rt-basic', second.refresh_token);
check('reuse killed the newest refresh token', r.status === 400 && r.error === 'invalid_grant', r);
check('reuse killed the newest access token', await active(second.access_token) === false);

let t = await seed('rt-000');
const both = await Promise.all([refresh('rt-000', t), refresh('rt-000', t)]); const won = both.filter((x) => x.status === 200);
check('concurrent double refresh: one winner', won.length === 1, both);
r = await refresh('rt-000', won[0].refresh_token);
check('... and the winner holds a dead grant', r.status === 400, r);
t = await seed('rt-001');
await admin('/admin/fault', { client: 'rt-001', mode: 'drop_after', count: 1 });
check('drop_after loses the answer', await refresh('rt-001', t).then(() => false, () => true));
r = await refresh('rt-001', t);
check('... and the retry is reuse', r.status === 400 && r.error === 'invalid_grant', r);
const s = await admin('/admin/stats');
check('reuse_detected counted', s.totals.reuse_detected === 3 && s.totals.forks === 0 && s.reuse_events.length === 3, s.totals);
check('requests counted per client and grant', s.counts['rt-001'].refresh_token.requests === 2 && s.counts['rt-001'].refresh_token.ok === 1, s.counts['rt-001']);
t = await seed('rt-002');
for (let i = 0; i < 10; i += 1) t = (await refresh('rt-002', t)).refresh_token;
const [f] = await admin('/admin/families?client=rt-002');
check('clean family: 11 generations, one mint each', f.generation === 10 && Object.values(f.mints).every((n) => n === 1) && f.reuse_detected === 0 && f.revoked_at === null, f);

// ---- when requests were open: history, overlaps, held answers, clients that hang up
const history = (c) => admin(`/admin/history?client=${c}`);
const heldOf = (c) => admin(`/admin/held?client=${c}&wait_ms=10000`);
const ended = async (c, n) => { for (;;) { const h = await history(c); if (h.filter((x) => x.end).length >= n) return h; await wait(10); } };
check('requests in a row do not overlap', (await admin('/admin/overlaps')).every((o) => o.of !== 'rt-002'));
let h = await history('rt-002');
check('each request has arrival, service and end, in this order', h.length === 10 && h.every((x) => x.arrived_ms <= x.served_ms && x.served_ms <= x.ended_ms && x.end === 'answered' && x.use === 1), h);

t = await seed('rt-003');
await admin('/admin/fault', { client: 'rt-003', mode: 'hold_before', count: 1 });
let slow = refresh('rt-003', t);
let held = await heldOf('rt-003');
check('hold_before holds before the token is spent', held.length === 1 && held[0].mode === 'hold_before' && (await history('rt-003'))[0].served_ms === null, held);
check('a request that is held has not ended', (await history('rt-003'))[0].end === null);
r = await admin('/admin/release', { client: 'rt-003' });
check('release lets it be served', r.released === 1 && (await slow).status === 200, r);

t = await seed('rt-004');
await admin('/admin/fault', { client: 'rt-004', mode: 'hold_after', count: 1 });
slow = refresh('rt-004', t);
await heldOf('rt-004');
check('hold_after holds after the token is spent', (await history('rt-004'))[0].served_ms !== null);
r = await refresh('rt-004', t);
check('... so that a second request is reuse', r.status === 400, r);
await admin('/admin/release', { client: 'rt-004' }); await slow;
let o = (await admin('/admin/overlaps')).filter((x) => x.of === 'rt-004');
h = await history('rt-004');
check('the overlap of the two is reported per client', o.length === 1 && o[0].first === h[0].seq && o[0].second === h[1].seq, o);
o = await admin('/admin/overlaps?by=family');
check('... and per family', o.filter((x) => x.of === h[0].grant_id).length === 1, o);

t = await seed('rt-005');
await admin('/admin/fault', { client: 'rt-005', mode: 'hold_after', count: 1 });
const hangUp = new AbortController();
slow = fetch(`${B}/token`, { method: 'POST', headers: basic('rt-005'), signal: hangUp.signal, body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: t }) }).catch(() => 'aborted');
await heldOf('rt-005'); hangUp.abort(); await slow;
[h] = await ended('rt-005', 1);
check('a client that hangs up ends its request, not its hold', h.end === 'client_gone' && h.issued !== null && (await admin('/admin/held?client=rt-005')).length === 1, h);
await admin('/admin/release', { client: 'rt-005' });

t = await seed('rt-006');
await admin('/admin/fault', { client: 'rt-006', mode: 'hold_before', count: 1 });
const hangUp2 = new AbortController();
slow = fetch(`${B}/token`, { method: 'POST', headers: basic('rt-006'), signal: hangUp2.signal, body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: t }) }).catch(() => 'aborted');
await heldOf('rt-006'); hangUp2.abort(); await slow;
await ended('rt-006', 1);
await admin('/admin/release', { client: 'rt-006' });
do { [h] = await history('rt-006'); await wait(10); } while (h.served_ms === null);
check('a request whose client has gone is served and counted all the same', h.served_ms > h.ended_ms && h.generation === 1 && (await admin('/admin/families?client=rt-006'))[0].mints[1] === 1, h);

t = await seed('rt-007');
await admin('/admin/fault', { client: 'rt-007', mode: 'hold_after', count: 1 });
slow = refresh('rt-007', t).then(() => 'answered', () => 'lost');
await heldOf('rt-007');
await admin('/admin/release', { client: 'rt-007', as: 'drop' });
check('release as drop loses the answer', await slow === 'lost' && (await history('rt-007'))[0].end === 'dropped');
await admin('/admin/fault', { client: 'rt-008', mode: 'status', status: 429, headers: { 'retry-after': '7' }, count: 1 });
t = await seed('rt-008');
r = await fetch(`${B}/token`, { method: 'POST', headers: basic('rt-008'), body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: t }) });
check('an injected status spends nothing and is recorded', r.status === 429 && r.headers.get('retry-after') === '7' && (await refresh('rt-008', t)).status === 200 && (await history('rt-008')).map((x) => x.status).join() === '429,200');
r = (await (await fetch(`${B}/admin/events?type=token_end`)).text()).trim().split('\n').map((l) => JSON.parse(l));
check('every end is an event too', r.length === (await history('')).filter((x) => x.end).length && r.every((x) => x.arrived_ms <= x.ended_ms), r.length);
check('an unknown fault mode is refused', (await admin('/admin/fault', { mode: 'explode' })).error === 'no such mode');
const told = JSON.stringify(await history('')) + JSON.stringify(r);
check('no refresh token appears in history or events', ![t, second.refresh_token, first.refresh_token].some((x) => told.includes(x)));
console.log(`${pass} passed, ${fail} failed`);
process.exit(fail ? 1 : 0);
