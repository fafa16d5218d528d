// The client's rule by itself, against a model of the server: whatever is lost, repeated or comes in another order, the list is the server's
// in the end. And its types: each thing that the module exports is typed, and can be used as the types say.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const BELL = fileURLToPath(new URL('../../web/inbox', import.meta.url));
const module = await import(`data:text/javascript;base64,${(await readFile(path.join(BELL, 'inbox.js'))).toString('base64')}`);
const { InboxState, matches } = module;

// Numbers from 0 to 1 that a seed decides.
function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// What the server keeps of one inbox, and what it would say.
class Server {
  rev = 0;
  items = new Map();
  clock = 0;

  at() { return new Date(1_790_000_000_000 + 1000 * (this.clock += 1)).toISOString().replace('Z', '000Z'); }
  get counts() {
    const inbox = [...this.items.values()].filter((n) => !n.deleted && matches(n, {}));
    return { unread: inbox.filter((n) => !n.read_at).length, unseen: inbox.filter((n) => !n.seen_at).length };
  }
  tell(name, more) { return [name, { rev: this.rev, counts: this.counts, ...more }]; }

  step(random) {
    const at = this.at();
    const open = [...this.items.values()].filter((n) => !n.deleted);
    const one = open[Math.floor(random() * open.length)];
    this.rev += 1;
    if (!one || random() < 0.4) {
      const n = { id: `id-${String(this.rev).padStart(4, '0')}`, type: 'a.b', severity: 'normal', title: `n${this.rev}`, group_count: 1, created_at: at, visible_at: at, seen_at: null, read_at: null, archived_at: null, snoozed_until: null, rev: this.rev };
      this.items.set(n.id, n);
      return this.tell('notification.created', { at, notification: { ...n } });
    }
    if (random() < 0.25) {
      const verb = ['seen', 'read', 'archive'][Math.floor(random() * 3)];
      const upTo = Math.floor(random() * this.rev);
      for (const n of open.filter((n) => n.rev <= upTo && matches(n, {}))) {
        const before = JSON.stringify(n);
        if (verb !== 'archive') n.seen_at ??= at;
        if (verb === 'read') n.read_at ??= at;
        if (verb === 'archive') n.archived_at ??= at;
        if (JSON.stringify(n) !== before) n.rev = this.rev;
      }
      return this.tell(`inbox.all_${verb === 'archive' ? 'archived' : verb}`, { at, up_to_rev: upTo, filter: { status: 'all', archived: 'exclude', snoozed: 'exclude' } });
    }
    one.rev = this.rev;
    const verb = ['read', 'unread', 'archived', 'deleted'][Math.floor(random() * 4)];
    if (verb === 'read') { one.seen_at ??= at; one.read_at ??= at; }
    if (verb === 'unread') one.read_at = null;
    if (verb === 'archived') one.archived_at ??= at;
    if (verb === 'deleted') one.deleted = true;
    return this.tell(`notification.${verb}`, { at, notification: verb === 'deleted' ? { id: one.id } : { ...one } });
  }

  changes(since) {
    const changed = [...this.items.values()].filter((n) => n.rev > since).sort((a, b) => a.rev - b.rev);
    const change = ({ deleted, ...n }) => (deleted ? { rev: n.rev, deleted: n.id } : { rev: n.rev, notification: n });
    return { changes: changed.map(change), next: null, reset: false, rev: this.rev, counts: this.counts };
  }

  list() {
    const items = [...this.items.values()].filter((n) => !n.deleted && matches(n, {}));
    return items.sort((a, b) => (`${a.visible_at} ${a.id}` < `${b.visible_at} ${b.id}` ? 1 : -1)).map(({ id, read_at, seen_at }) => ({ id, read_at, seen_at }));
  }
}

test('whatever is lost, repeated or late, the list is the server\'s in the end', (t) => {
  const seed = Number(process.env.HERALD_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32));
  t.diagnostic(`HERALD_TEST_SEED=${seed}`);
  for (let run = 0; run < 300; run += 1) {
    const random = seeded(seed + run);
    const server = new Server();
    for (let step = 0; step < random() * 20; step += 1) server.step(random);
    const state = new InboxState();
    const view = state.view();
    state.page(view, { items: [...server.items.values()].filter((n) => !n.deleted && matches(n, {})).map((n) => ({ ...n })), next_cursor: null, rev: server.rev, counts: server.counts });
    const late = [];
    for (let step = 0; step < 40; step += 1) {
      const event = server.step(random);
      const fate = random();
      if (fate < 0.6) state.event(...event);
      else if (fate < 0.75) late.push(() => state.event(...event));
      else if (fate < 0.85) { state.event(...event); state.event(...event); }
      if (random() < 0.3 && late.length) late.splice(Math.floor(random() * late.length), 1)[0]();
      if (random() < 0.2) {
        const since = state.rev;
        const answer = server.changes(since);
        late.push(() => state.changes(since, answer));
      }
      // The answer to an action that changed nothing: its item may have changed together with others, of which nothing was heard yet.
      const held = [...server.items.values()].filter((n) => !n.deleted && (n.rev === server.rev || random() < 0.2));
      if (held.length && random() < 0.3) {
        const { deleted, ...n } = held[Math.floor(random() * held.length)];
        state.answer({ notification: { ...n }, rev: server.rev, counts: server.counts });
      }
    }
    while (late.length) late.splice(Math.floor(random() * late.length), 1)[0]();
    state.event('inbox.state', { rev: server.rev, counts: server.counts });
    while (state.behind) state.changes(state.rev, server.changes(state.rev));
    const shown = state.list(view).map(({ id, read_at, seen_at }) => ({ id, read_at, seen_at }));
    assert.deepEqual([shown, state.counts, state.rev], [server.list(), server.counts, server.rev], `seed ${seed}, run ${run}`);
  }
});

test('all that the module exports is typed', async (t) => {
  const types = await readFile(path.join(BELL, 'inbox.d.ts'), 'utf8');
  const typed = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(typed.sort(), Object.keys(module).sort());
  const folder = await mkdtemp(path.join(tmpdir(), 'types-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  for (const file of ['inbox.js', 'inbox.d.ts']) await cp(path.join(BELL, file), path.join(folder, file));
  await writeFile(path.join(folder, 'use.ts'), `
    import { HeraldInbox, HeraldInboxElement, InboxState, channelOf, matches, type Notification } from './inbox.js';
    const inbox = new HeraldInbox({ url: 'https://herald.example', appKey: 'key', getToken: async () => 'token', filter: { type: ['a.*'] } });
    const end: () => void = inbox.subscribe(({ items, counts }, fresh) => console.log(items[0]?.title, counts.unread, fresh.length));
    inbox.snooze('id', new Date()).then(() => inbox.markAll('read', { status: 'unread' })).then(end);
    const bell: HeraldInboxElement = document.createElement('herald-inbox');
    bell.addEventListener('herald-notification', ({ detail }) => { const n: Notification = detail.notification; console.log(n.action_url); });
    bell.labels = { count: (n) => \`\${n} neue\` };
    const state = new InboxState();
    state.event('notification.created', { rev: 1 });
    channelOf('user').then((name: string) => console.log(name, state.list(state.view()).filter((n) => matches(n, {}))));
    // @ts-expect-error: that is no action
    inbox.markAll('delete');
  `);
  const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', import.meta.url));
  await promisify(execFile)(process.execPath, [tsc, '--noEmit', '--strict', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'es2022,dom', path.join(folder, 'use.ts')])
    .catch((error) => assert.fail(error.stdout));
});
