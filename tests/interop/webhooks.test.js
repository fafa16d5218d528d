// Webhooks, verified by the npm package `pusher`.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { Backend } from './support/backend.js';
import { pusherJs, subscribed } from './support/clients.js';
import { APP, Herald } from './support/herald.js';
import { Inbox } from './support/inbox.js';

const ALL = ['channel_occupied', 'channel_vacated', 'member_added', 'member_removed', 'client_event', 'cache_miss', 'subscription_count'];

async function start(t, webhook, app) {
  const backend = await Backend.start(t);
  const herald = await Herald.start(t, { app, webhooks: [{ url: `${backend.url}/webhooks`, ...webhook }] });
  backend.connect(herald);
  return { backend, herald, user: (name) => pusherJs(t, herald, backend, { user: name }) };
}

test('every kind of webhook arrives, signed so that the library accepts it', async (t) => {
  const { backend, user } = await start(t, { events: ALL, headers: { 'X-Extra': 'yes' } }, { subscription_count: true });
  const ann = user('ann');
  const hooks = new Map();
  const { channel } = await subscribed(ann, 'presence-cache-hooks');
  const bob = await subscribed(user('bob'), 'presence-cache-hooks');
  channel.trigger('client-wave', { hand: 'left' });
  await bob.inbox.until('client-wave');
  await subscribed(ann, 'counted-hooks');
  ann.disconnect();
  while (hooks.size < ALL.length) {
    const { name, value } = await backend.webhooks.next(15_000);
    hooks.set(name, [...(hooks.get(name) ?? []), value]);
  }

  assert.ok(backend.requests.every(({ valid }) => valid), 'every request is signed');
  const { headers, body } = backend.requests[0];
  assert.equal(headers['content-type'], 'application/json');
  assert.equal(headers['x-pusher-key'], APP.key);
  assert.equal(headers['x-extra'], 'yes');
  assert.ok(headers['x-herald-delivery']);
  assert.ok(Math.abs(JSON.parse(body).time_ms - Date.now()) < 60_000);

  const [first] = hooks.get('client_event');
  assert.equal(first.channel, 'presence-cache-hooks');
  assert.equal(first.event, 'client-wave');
  assert.equal(first.data, '{"hand":"left"}');
  assert.equal(first.user_id, 'ann');
  assert.match(first.socket_id, /^\d+\.\d+$/);
  assert.deepEqual(hooks.get('member_added').map(({ user_id }) => user_id), ['ann', 'bob']);
  assert.equal(hooks.get('member_removed')[0].user_id, 'ann');
  assert.equal(hooks.get('cache_miss')[0].channel, 'presence-cache-hooks');
  assert.equal(hooks.get('channel_vacated')[0].channel, 'counted-hooks');
  assert.ok(hooks.get('subscription_count').every((event) => Number.isInteger(event.subscription_count)));
});

test('who returns within three seconds was never gone', async (t) => {
  const { backend, user } = await start(t, {});
  const ann = user('ann');
  await subscribed(ann, 'presence-reload');
  for (const name of ['channel_occupied', 'member_added']) await backend.webhooks.until(name);
  ann.disconnect();
  await subscribed(user('ann'), 'presence-reload');
  await subscribed(user('bob'), 'presence-reload');
  const { name, value } = await backend.webhooks.next();
  assert.deepEqual([name, value.user_id], ['member_added', 'bob'], 'nothing of the reload came before');
  await assert.rejects(backend.webhooks.next(4_000), 'nor after the grace');
});

test('only the wanted kinds and channels are sent', async (t) => {
  const { backend, user } = await start(t, { events: ['channel_occupied'], channel_prefix: 'wanted-', channel_suffix: '-yes' });
  const ann = user('ann');
  for (const channel of ['other-yes', 'wanted-no', 'presence-wanted', 'wanted-yes']) await subscribed(ann, channel);
  assert.equal((await backend.webhooks.next()).value.channel, 'wanted-yes');
});

test('a receiver that fails gets the same delivery again', async (t) => {
  const { backend, user } = await start(t, { events: ['channel_occupied'] });
  backend.answer = (earlier) => (earlier < 2 ? 500 : 200);
  await subscribed(user('ann'), 'retried');
  assert.equal((await backend.webhooks.until('channel_occupied', 30_000)).channel, 'retried');
  assert.equal(new Set(backend.requests.map(({ headers }) => headers['x-herald-delivery'])).size, 1);
  assert.equal(new Set(backend.requests.map(({ body }) => body)).size, 1);
});

test("the documentation's receiver takes what is signed, and nothing else", async (t) => {
  const page = await readFile(new URL('../../docs/webhooks.md', import.meta.url), 'utf8');
  const [, code] = /```js\n([^]*?)```/.exec(page);
  assert.match(code, /server\.listen\(3000\)/);
  const told = new Inbox();
  const run = new Function('require', 'console', `${code.replace('3000', "0, '127.0.0.1'")}\nreturn server;`);
  const server = run(createRequire(import.meta.url), { log: (name, channel) => told.push(name, channel) });
  t.after(() => { server.closeAllConnections(); server.close(); });
  await new Promise((resolve) => server.once('listening', resolve));
  const url = `http://127.0.0.1:${server.address().port}/webhooks`;

  const herald = await Herald.start(t, { webhooks: [{ url }] });
  const backend = await Backend.start(t);
  backend.connect(herald);
  await subscribed(pusherJs(t, herald, backend), 'hall');
  assert.equal(await told.until('channel_occupied'), 'hall');
  const headers = { 'content-type': 'application/json', 'x-pusher-key': APP.key, 'x-pusher-signature': '0'.repeat(64) };
  assert.equal((await fetch(url, { method: 'POST', headers, body: '{"time_ms":1,"events":[]}' })).status, 401);
});
