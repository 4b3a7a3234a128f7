// One record for each token request: when it arrived, when it was served (its refresh token spent), when and
// how it ended, and which requests were open at the same time.  The field names are those of evermint-issuer's
// `GET /admin/history`, so that one reader checks both.  Tokens appear only as digests made by the caller.
const RECORDS_MAX = 200_000;        // the oldest are forgotten first
const HELD_WAIT_MS_MAX = 60_000;    // the longest that one `GET /admin/held` waits

export class Requests {
  #seq = 0;
  #records = [];

  // The monotonic clock is milliseconds since the process started.
  moment() { return { ms: Math.round(performance.now() * 1000) / 1000, unix_ms: Date.now() }; }

  open(arrived, fields) {
    const record = {
      seq: ++this.#seq, client: null, grant: null, grant_id: null, presented: null, presented_generation: null,
      use: null, issued: null, access: null, generation: null, status: null, error: null, detail: null, reuse: false,
      fault: null, ...fields, arrived_ms: arrived.ms, arrived_unix_ms: arrived.unix_ms,
      served_ms: null, ended_ms: null, ended_unix_ms: null, end: null,
    };
    this.#records.push(record);
    if (this.#records.length > RECORDS_MAX * 1.25) this.#records = this.#records.slice(-RECORDS_MAX);
    return record;
  }

  served(record, fields) { Object.assign(record, fields, { served_ms: this.moment().ms }); }

  // how: answered | dropped (closed by us) | client_gone.  Only the first end counts; true if this was it.
  end(record, how) {
    if (record.end) return false;
    const now = this.moment();
    Object.assign(record, { ended_ms: now.ms, ended_unix_ms: now.unix_ms, end: how });
    return true;
  }

  history({ client, since = 0 } = {}) {
    return this.#records.filter((r) => r.seq > since && (!client || r.client === client));
  }

  // Pairs of requests of one client (or one family) that were open at the same time.  A request that arrives
  // when another ends does not overlap it; one that has not ended overlaps all that arrive later.
  overlaps(by = 'client') {
    const key = { client: 'client', family: 'grant_id' }[by];
    const groups = new Map();
    for (const r of this.#records) {
      if (r[key] && !groups.has(r[key])) groups.set(r[key], []);
      groups.get(r[key])?.push(r);
    }
    const out = [];
    for (const [of, group] of groups) {
      group.sort((a, b) => a.arrived_ms - b.arrived_ms || a.seq - b.seq);
      let open = [];
      for (const second of group) {
        open = open.filter((first) => first.ended_ms === null || first.ended_ms > second.arrived_ms);
        for (const first of open) out.push({ of, first: first.seq, second: second.seq });
        open.push(second);
      }
    }
    return out;
  }

  reset() { this.#records = []; }
}

// Requests that wait for POST /admin/release.
export class Holds {
  #held = [];                       // {seq, client, mode, go}
  #watchers = new Set();

  // Resolves to `answer` or `drop`.
  hold(record, mode) {
    return new Promise((go) => {
      this.#held.push({ seq: record.seq, client: record.client, mode, go });
      for (const look of this.#watchers) look();
    });
  }

  list(client) {
    return this.#held.filter((h) => !client || h.client === client).map(({ seq, client: c, mode }) => ({ seq, client: c, mode }));
  }

  // The held requests of a client, as soon as there is one; an empty list after `ms`.
  async wait(client, ms) {
    if (this.list(client).length === 0 && ms > 0) {
      await new Promise((done) => {
        const look = () => { if (this.list(client).length > 0) { clearTimeout(timer); this.#watchers.delete(look); done(); } };
        const timer = setTimeout(() => { this.#watchers.delete(look); done(); }, Math.min(ms, HELD_WAIT_MS_MAX));
        this.#watchers.add(look);
      });
    }
    return this.list(client);
  }

  release(client, how = 'answer') {
    const fits = (h) => !client || h.client === client;
    const going = this.#held.filter(fits);
    this.#held = this.#held.filter((h) => !fits(h));
    for (const h of going) h.go(how);
    return going.length;
  }
}
