// What README.md promises a newcomer: its snippets, word for word but for the port, and the names of other servers' variables.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Backend } from './support/backend.js';
import { connected, pusherJs, subscribed } from './support/clients.js';
import { Herald, runToEnd } from './support/herald.js';
import { Inbox } from './support/inbox.js';

const PYTHON = process.env.HERALD_TEST_PYTHON ?? fileURLToPath(new URL('python/.venv/bin/python', import.meta.url));
const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
const snippets = (language) => [...readme.matchAll(new RegExp('```' + language + '\\n([^]*?)```', 'g'))].map(([, code]) => code);
const at = (code, port) => { assert.match(code, /6001/); return code.replaceAll('6001', port); };

const NEWCOMER = { HERALD_LISTEN: '127.0.0.1:0', HERALD_METRICS_LISTEN: '127.0.0.1:0' };

test('the snippets: a page hears both backends', async (t) => {
  const herald = await Herald.startFromEnvironment(t, NEWCOMER);
  const [page, backend] = snippets('js');
  const [python] = snippets('python');
  const require = createRequire(import.meta.url);
  const heard = new Inbox();
  const run = (code, names, values) => new Function(...names, `${code}\nreturn pusher;`)(...values);

  const open = async (port) => {
    const client = run(at(page, port), ['Pusher', 'console'], [require('pusher-js'), { log: (data) => heard.push('my-event', data) }]);
    t.after(() => client.disconnect());
    await new Promise((resolve) => client.channel('my-channel').bind('pusher:subscription_succeeded', resolve));
  };
  await open(herald.port);
  run(at(backend, herald.port), ['require'], [require]);
  assert.deepEqual((await heard.next()).value, { hello: 'world' });

  // The PyPI library takes app ids of digits only, so its snippet has an app of its own.
  const [id] = /app_id="(\d+)"/.exec(python).slice(1);
  const numbered = await Herald.startFromEnvironment(t, { ...NEWCOMER, HERALD_APP_ID: id, HERALD_APP_KEY: 'app-key', HERALD_APP_SECRET: 'app-secret' });
  await open(numbered.port);
  const child = spawn(PYTHON, ['-c', at(python, numbered.port)], { stdio: 'inherit' });
  assert.equal(await new Promise((resolve, reject) => child.on('exit', resolve).on('error', reject)), 0);
  assert.deepEqual((await heard.next()).value, { hello: 'world' });
});

for (const [whose, environment] of [
  ['Herald', { HERALD_APP_ID: 'app-id', HERALD_APP_KEY: 'app-key', HERALD_APP_SECRET: 'app-secret' }],
  ['Pusher', { PUSHER_APP_ID: 'shop', PUSHER_KEY: 'shop-key', PUSHER_SECRET: 'shop-secret' }],
  ['Pusher in Laravel', { PUSHER_APP_ID: 'shop', PUSHER_APP_KEY: 'shop-key', PUSHER_APP_SECRET: 'shop-secret' }],
  ['soketi', { SOKETI_DEFAULT_APP_ID: 'shop', SOKETI_DEFAULT_APP_KEY: 'shop-key', SOKETI_DEFAULT_APP_SECRET: 'shop-secret' }],
  ['Reverb', { REVERB_APP_ID: 'shop', REVERB_APP_KEY: 'shop-key', REVERB_APP_SECRET: 'shop-secret' }],
]) {
  test(`the variables of ${whose} are taken as they are`, async (t) => {
    const [appId, key, secret] = Object.values(environment);
    const herald = await Herald.startFromEnvironment(t, { ...NEWCOMER, ...environment });
    const { default: Pusher } = await import('pusher-js');
    const { default: PusherServer } = await import('pusher');
    const client = new Pusher(key, { cluster: 'herald', wsHost: '127.0.0.1', wsPort: herald.port, forceTLS: false, enabledTransports: ['ws'] });
    t.after(() => client.disconnect());
    const { inbox } = await subscribed(client, 'moved');
    await new PusherServer({ appId, key, secret, host: '127.0.0.1', port: herald.port, useTLS: false }).trigger('moved', 'in', 1);
    assert.equal(await inbox.until('in'), 1);
    if (secret !== 'app-secret') assert.doesNotMatch(herald.log, new RegExp(secret));
  });
}

test('without an app, an address that others reach is refused, and the three variables are named', async () => {
  const { code, output } = await runToEnd([], { HERALD_LISTEN: '0.0.0.0:0', HERALD_METRICS_LISTEN: 'off' });
  assert.notEqual(code, 0);
  for (const name of ['HERALD_APP_ID', 'HERALD_APP_KEY', 'HERALD_APP_SECRET']) assert.match(output, new RegExp(name));
});

test('health and metrics answer on their own listener, health also on the main one', async (t) => {
  const herald = await Herald.start(t);
  const backend = await Backend.start(t);
  backend.connect(herald);
  await connected(pusherJs(t, herald, backend));
  for (const base of [herald.url, herald.metrics]) {
    for (const path of ['/health/live', '/health/ready']) assert.equal((await fetch(base + path)).status, 200, base + path);
  }
  assert.match(await (await fetch(`${herald.metrics}/metrics`)).text(), /^herald_connections(\{.*\})? 1$/m);
});
