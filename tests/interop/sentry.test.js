// Sentry by its own code: what Herald sends is taken apart by the package that Sentry's SDKs are made of, and whatever Sentry does, Herald's clients
// notice nothing. The snippet of docs/sentry.md for pages is what Sentry's types allow, and says what happens to a real connection.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { dsnToString, getEnvelopeEndpointWithUrlEncodedAuth, makeDsn, parseEnvelope } from '@sentry/core';
import { pusherFor } from './support/backend.js';
import { connected, pusherJs, subscribed } from './support/clients.js';
import { Herald } from './support/herald.js';
import { Inbox } from './support/inbox.js';

const DOCS = await readFile(new URL('../../docs/sentry.md', import.meta.url), 'utf8');
const [, SNIPPET] = /```js\n([^]*?)```/.exec(DOCS);

// A stand-in for Sentry's ingest. `answer` decides what becomes of a request: it gets the response.
class Sentry {
  items = new Inbox(); // each item of an envelope under its type
  requests = 0;

  static async start(t, answer = (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{}')) {
    const sentry = new Sentry();
    sentry.server = createServer((request, response) => sentry.#take(request, response, answer).catch((error) => {
      sentry.items.push('wrong', String(error));
      response.writeHead(400).end();
    }));
    await new Promise((resolve) => sentry.server.listen(0, '127.0.0.1', resolve));
    t.after(() => { sentry.server.closeAllConnections(); return new Promise((resolve) => sentry.server.close(resolve)); });
    sentry.dsn = makeDsn(`http://public@127.0.0.1:${sentry.server.address().port}/prefix/42`);
    return sentry;
  }

  async #take(request, response, answer) {
    this.requests += 1;
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const address = new URL(getEnvelopeEndpointWithUrlEncodedAuth(this.dsn));
    assert.equal(request.method, 'POST');
    assert.equal(new URL(request.url, address).pathname, address.pathname);
    assert.match(request.headers['x-sentry-auth'], /sentry_key=public\b/);
    const [headers, items] = parseEnvelope(Buffer.concat(chunks));
    assert.ok(Math.abs(Date.parse(headers.sent_at) - Date.now()) < 60_000, headers.sent_at);
    assert.ok(items.length > 0);
    // What says its length is given as bytes.
    for (const [header, bytes] of items) this.items.push(header.type, { header, payload: JSON.parse(Buffer.from(bytes)), headers });
    await answer(response);
  }
}

// A Herald that has something to report from its start: its database cannot be opened.
const reporting = (t, sentry, rate = 0) => Herald.start(t, {
  more: `[database]\nurl = "sqlite:/dev/null/herald.db"\n[sentry]\ndsn = "${dsnToString(sentry.dsn, true)}"\nenvironment = "staging"\nrelease = "shop@1.2.3"\ntraces_sample_rate = ${rate}\n`,
});

const value = async (herald, series) => {
  const text = await (await fetch(`${herald.metrics}/metrics`)).text();
  return Number(text.split('\n').find((line) => line.startsWith(`${series} `))?.split(' ')[1] ?? 0);
};

test('events and traces are what Sentry reads', async (t) => {
  const sentry = await Sentry.start(t);
  const herald = await reporting(t, sentry, 1);
  const { payload: event, header, headers } = await sentry.items.until('event');
  assert.equal(header.type, 'event');
  assert.match(event.event_id, /^[0-9a-f]{32}$/);
  assert.equal(headers.event_id.replaceAll('-', ''), event.event_id);
  assert.match(event.message, /database cannot be opened/);
  assert.deepEqual([event.environment, event.release, event.platform ?? 'native'], ['staging', 'shop@1.2.3', 'native']);
  assert.ok(Math.abs(event.timestamp * 1000 - Date.now()) < 60_000, `${event.timestamp} is in seconds`);
  assert.ok(event.breadcrumbs.values.length > 0);
  assert.ok(event.sdk.name, 'Sentry wants to know what speaks');

  assert.equal((await fetch(`${herald.url}/openapi.json?secret=Gx81hq`)).status, 200);
  const { payload: trace } = await sentry.items.until('transaction');
  assert.equal(trace.transaction, 'GET /openapi.json');
  assert.match(trace.contexts.trace.trace_id, /^[0-9a-f]{32}$/);
  assert.match(trace.contexts.trace.span_id, /^[0-9a-f]{16}$/);
  // Sentry takes both forms of a time.
  const took = Date.parse(trace.timestamp) - Math.floor(trace.start_timestamp * 1000);
  assert.ok(took >= 0 && took < 10_000, `${took} ms`);
  assert.equal(trace.contexts.trace.data['http.response.status_code'], 200);
  assert.ok(!JSON.stringify(trace).includes('Gx81hq'), 'no query leaves');
  assert.equal((await herald.stop()).code, 0);
});

for (const [what, answer] of [
  ['is slow', (response) => setTimeout(() => response.end('{}'), 1_000)],
  ['fails', (response) => response.writeHead(500).end('Oops')],
  ['wants less', (response) => response.writeHead(429, { 'retry-after': '60' }).end()],
  ['hangs', () => {}],
  ['breaks off', (response) => response.destroy()],
]) {
  test(`a Sentry that ${what} holds up nobody`, async (t) => {
    const sentry = await Sentry.start(t, answer);
    const herald = await reporting(t, sentry, 1);
    await sentry.items.until('event');
    const client = pusherJs(t, herald);
    const { inbox } = await subscribed(client, 'news');
    const server = pusherFor(herald);
    for (let number = 0; number < 60; number += 1) {
      const begun = Date.now();
      await server.trigger('news', 'hello', number);
      assert.equal((await inbox.until('hello')), number);
      assert.ok(Date.now() - begun < 2_000, `${Date.now() - begun} ms`);
    }
    if (what !== 'breaks off') assert.ok(await value(herald, 'herald_sentry_reports_total{result="dropped"}') > 0, 'what does not fit is dropped');
    assert.ok(sentry.requests < 40, `${sentry.requests} requests: it is left alone`);
    const begun = Date.now();
    assert.equal((await herald.stop()).code, 0);
    assert.ok(Date.now() - begun < 6_000, `it ends in time: ${Date.now() - begun} ms`);
  });
}

test("the page's snippet is what Sentry's types allow", async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'herald-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await symlink(fileURLToPath(new URL('node_modules', import.meta.url)), path.join(folder, 'node_modules'));
  await writeFile(path.join(folder, 'page.ts'), `declare const process: { env: Record<string, string> };\n${SNIPPET.replace('watchConnection(pusher)', "watchConnection(pusher: import('pusher-js').default)").replace('({ previous, current })', '({ previous, current }: Record<string, string>)').replace("'error', (error)", "'error', (error: any)")}`);
  const tsc = fileURLToPath(new URL('node_modules/typescript/bin/tsc', import.meta.url));
  await promisify(execFile)(process.execPath, [tsc, '--noEmit', '--strict', '--skipLibCheck', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'es2022,dom,dom.iterable', path.join(folder, 'page.ts')])
    .catch((error) => assert.fail(error.stdout));
});

test("the page's snippet tells the way of a connection, and which end is for good", async (t) => {
  const told = [];
  const Sentry = {
    init: (options) => told.push(['init', options]), browserTracingIntegration: () => 'tracing',
    addBreadcrumb: ({ category, message, data }) => told.push([category, message, data]), captureMessage: (text) => told.push(['captured', text]),
  };
  const code = SNIPPET.replace(/^import .*$/m, '').replace('export function', 'function');
  const { watchConnection } = new Function('Sentry', 'process', `${code}\nreturn { watchConnection };`)(Sentry, { env: { NEXT_PUBLIC_SENTRY_DSN: 'https://key@o1.ingest.sentry.io/2' } });
  const [, options] = told.shift();
  assert.deepEqual(options.integrations, ['tracing']);
  assert.equal(options.beforeBreadcrumb({ data: { url: 'https://h/pusher/auth?token=Gx81hq' } }).data.url, 'https://h/pusher/auth');

  const herald = await Herald.start(t);
  const client = pusherJs(t, herald);
  watchConnection(client);
  await connected(client);
  assert.ok(told.some(([category, message]) => category === 'pusher' && message === 'connecting → connected'), JSON.stringify(told));
  assert.ok(!told.some(([category]) => category === 'captured'));

  const wrong = new (client.constructor)('no-such-key', { ...client.config, cluster: 'herald', wsHost: '127.0.0.1', wsPort: herald.port, forceTLS: false, enabledTransports: ['ws'], enableStats: false });
  t.after(() => wrong.disconnect());
  watchConnection(wrong);
  await new Promise((resolve) => wrong.connection.bind('error', () => setTimeout(resolve)));
  assert.ok(told.some(([category, text]) => category === 'captured' && text === 'realtime: closed with 4001'), JSON.stringify(told));
});
