// Many tabs of many users on two nodes, while nodes are killed and cut off from Redis: when it is quiet again, every tab shows what the table
// says. Each schedule is a user's: what the user's three tabs and the backend do, in an order that the seed decides.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import Pusher from 'pusher';
import { database, freePort, redis, way } from './support/cluster.js';
import { pusherJs } from './support/clients.js';
import { APP, Herald } from './support/herald.js';
import { auth, handlers, sessionToken } from './support/identity.js';

const source = await readFile(new URL('../../web/inbox/inbox.js', import.meta.url));
const { HeraldInbox } = await import(`data:text/javascript;base64,${source.toString('base64')}`);

const ROUNDS = 10;
const SCHEDULES = 10; // in each round, at once
const STEPS = 14;
const QUIET = 60_000;

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

// What each user's tabs have asked and heard, for a failure to show.
const traces = new Map();
const trace = (user, ...what) => traces.set(user, [...(traces.get(user) ?? []), what.join(' ')]);
const ask = globalThis.fetch;
globalThis.fetch = async (address, options) => {
  const user = options?.headers?.Authorization && JSON.parse(Buffer.from(options.headers.Authorization.split('.')[1], 'base64url')).sub;
  const response = await ask(address, options);
  if (user && new URL(address).pathname.startsWith('/v1/')) trace(user, options.method ?? 'GET', new URL(address).pathname, options.body ?? '', response.status, (await response.clone().text()).slice(0, 3000));
  return response;
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

test('after whatever happens every tab shows what the table says', { timeout: 600_000 }, async (t) => {
  const seed = Number(process.env.HERALD_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32));
  t.diagnostic(`HERALD_TEST_SEED=${seed}`);
  const random = seeded(seed);
  const pick = (list) => list[Math.floor(random() * list.length)];

  const port = await redis(t);
  const ways = [await way(t, port), await way(t, port)];
  const more = (number) => `[cluster]\nnode_timeout = "3s"\nheartbeat = "500ms"\n[cluster.redis]\nurl = "redis://127.0.0.1:${ways[number].port}"\n${common}`;
  const common = `${database()}${auth()}`;
  const ports = [await freePort(), await freePort()];
  const start = (number) => Herald.start(null, { port: ports[number], more: more(number) });
  const nodes = [await start(0), await start(1)];
  t.after(() => Promise.all(nodes.map((node) => node.stop('SIGKILL'))));

  // Creates until an answer says that it is there: what is repeated under its id is made once.
  async function create(user, id, more) {
    const body = { to: { user_ids: [user] }, type: 'comment.mentioned', title: id, transaction_id: id, ...more };
    for (let number = 0; ; number += 1) {
      const backend = new Pusher({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: ports[number % 2], useTLS: false, timeout: 3000 });
      const made = await backend.post({ path: '/notifications', body }).then(() => true, () => false);
      if (made) return;
      await pause(100);
    }
  }

  async function schedule(user, decide) {
    const getToken = async () => sessionToken(user);
    const tabs = [0, 0, 1].map((number, position) => {
      const pusher = pusherJs(t, nodes[number], null, handlers(nodes[number].url, getToken));
      pusher.bind_global((name, data) => trace(user, 'heard', position, name, JSON.stringify(data)));
      return new HeraldInbox({ url: nodes[number].url, pusher, appKey: APP.key, getToken, pageSize: 100 });
    });
    const choose = (list) => list[Math.floor(decide() * list.length)];
    for (let step = 0; step < STEPS; step += 1) {
      const tab = choose(tabs);
      const item = choose(tab.snapshot.items);
      const act = choose(['create', 'create', 'group', 'read', 'unread', 'archive', 'snooze', 'delete', 'markSeen', 'all']);
      if (act === 'create') await create(user, `${user}-${step}`);
      else if (act === 'group') await create(user, `${user}-${step}`, { group_key: 'g' });
      else if (act === 'all') tab.markAll(choose(['seen', 'read', 'archive'])).catch(() => {});
      else if (item) tab[act](item.id, ...(act === 'snooze' ? [Date.now() + 3_600_000] : [])).catch(() => {});
      await pause(decide() * 60);
    }
    return tabs;
  }

  async function truth(user) {
    const response = await fetch(`${nodes[1].url}/v1/inbox?limit=100`, { headers: { Authorization: `Bearer ${sessionToken(user)}` } });
    assert.equal(response.status, 200);
    const { items, counts, rev } = await response.json();
    return { items: items.map(({ id, read_at, seen_at, group_count, title }) => ({ id, read_at, seen_at, group_count, title })), counts, rev };
  }
  const shown = ({ snapshot: { items, counts, rev } }) => ({
    items: items.map(({ id, read_at, seen_at, group_count, title }) => ({ id, read_at, seen_at, group_count, title })), counts, rev,
  });

  const faults = {
    async kill() {
      const number = pick([0, 1]);
      await nodes[number].stop('SIGKILL');
      nodes[number] = await start(number);
    },
    async cut() {
      const one = pick(ways);
      one.cut();
      await pause(400);
      one.heal();
    },
    async none() {},
  };

  for (let round = 0; round < ROUNDS; round += 1) {
    const fault = pick(['kill', 'cut', 'cut', 'none']);
    const users = Array.from({ length: SCHEDULES }, (_, number) => `user_${round}_${number}`);
    const running = users.map((user) => schedule(user, seeded(Math.floor(random() * 2 ** 32))));
    await pause(300);
    await faults[fault]();
    const all = await Promise.all(running);
    for (const [number, tabs] of all.entries()) {
      const deadline = Date.now() + QUIET;
      for (const [position, tab] of tabs.entries()) {
        for (;;) {
          const expected = await truth(users[number]).catch(() => null);
          try {
            assert.deepEqual(shown(tab), expected);
            break;
          } catch (error) {
            if (Date.now() > deadline) {
              console.log(traces.get(users[number]).slice(0, 200).join('\n'));
              error.message = `seed ${seed}, round ${round} (${fault}), ${users[number]}, tab ${position} (${tab.snapshot.status}): ${error.message}`;
              throw error;
            }
            await pause(100);
          }
        }
      }
      tabs.forEach((tab) => tab.close());
    }
  }
});
