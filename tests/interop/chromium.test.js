// pusher-js in a real browser: a page of the application, headless Chromium, an address of its own as origin.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Backend } from './support/backend.js';
import { options } from './support/clients.js';
import { APP, Herald } from './support/herald.js';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

describe('pusher-js in Chromium', () => {
  let browser, backend;
  before(async () => {
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS });
    backend = await Backend.start();
  });
  after(async () => { await browser?.close(); await backend?.stop(); });

  // A page with a connected client in `window.client`; `window.seen` collects what arrives.
  async function open(t, herald, user) {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    page.foreign = [];
    const own = new Set([new URL(backend.url).host, new URL(herald.url).host]);
    page.on('request', (request) => { const { host, protocol } = new URL(request.url()); if (/^http/.test(protocol) && !own.has(host)) page.foreign.push(request.url()); });
    page.on('websocket', (socket) => { if (!own.has(new URL(socket.url()).host)) page.foreign.push(socket.url()); });
    await page.goto(backend.url);
    await page.evaluate(([key, settings]) => {
      window.seen = [];
      window.client = new window.Pusher(key, settings);
      window.client.connection.bind('state_change', ({ current }) => window.seen.push(['state', current]));
      window.client.connection.bind('error', (error) => window.seen.push(['error', error.data?.code ?? error.error?.data?.code]));
      window.join = (name) => new Promise((resolve, reject) => {
        const channel = window.client.subscribe(name);
        channel.bind_global((event, data) => {
          window.seen.push([name, event, data?.members ? Object.keys(data.members) : data]);
          if (event === 'pusher:subscription_succeeded') resolve();
          if (event === 'pusher:subscription_error') reject(new Error(JSON.stringify(data)));
        });
      });
    }, [APP.key, options(herald, backend, user)]);
    return page;
  }
  const saw = (page, ...entry) => page.waitForFunction((wanted) => window.seen.some((seen) => JSON.stringify(seen.slice(0, wanted.length)) === wanted.text || JSON.stringify(seen) === wanted.text), { text: JSON.stringify(entry), length: entry.length }, { timeout: 15_000 })
    .catch(async () => assert.fail(`never saw ${JSON.stringify(entry)} in ${JSON.stringify(await page.evaluate(() => window.seen))}`));

  test('public, private, presence and encrypted channels, client events, users', async (t) => {
    const herald = await Herald.start(t, { app: { allowed_origins: [backend.url] } });
    const server = backend.connect(herald);
    const [ann, bob] = [await open(t, herald, 'ann'), await open(t, herald, 'bob')];
    for (const channel of ['page', 'private-page', 'presence-page', 'private-encrypted-page', 'cache-page']) {
      await ann.evaluate((name) => window.join(name), channel);
      await server.trigger(channel, 'hello', { to: channel });
      await saw(ann, channel, 'hello', { to: channel });
    }
    await saw(ann, 'cache-page', 'pusher:cache_miss');
    await bob.evaluate(() => window.join('presence-page'));
    await saw(ann, 'presence-page', 'pusher:member_added', { id: 'bob', info: { name: 'BOB' } });
    await bob.evaluate(() => window.client.channel('presence-page').trigger('client-wave', { hand: 'left' }));
    await saw(ann, 'presence-page', 'client-wave', { hand: 'left' });
    await bob.evaluate(async () => {
      window.client.user.bind('note', (data) => window.seen.push(['note', data]));
      window.client.signin();
      await window.client.user.signinDonePromise;
      await window.join('marker');
    });
    await server.sendToUser('bob', 'note', 'for bob');
    await saw(bob, 'note', 'for bob');
    await bob.context().close();
    await saw(ann, 'presence-page', 'pusher:member_removed', { id: 'bob', info: { name: 'BOB' } });
    assert.deepEqual(ann.foreign, [], 'no request went anywhere else');
  });

  test('a page of a foreign origin is refused with 4009', async (t) => {
    const herald = await Herald.start(t, { app: { allowed_origins: ['https://elsewhere.example'] } });
    backend.connect(herald);
    const page = await open(t, herald, 'ann');
    await saw(page, 'error', 4009);
    await saw(page, 'state', 'disconnected');
  });

  test('a page is back after the server restarted', async (t) => {
    const herald = await Herald.start(t);
    const server = backend.connect(herald);
    const page = await open(t, herald, 'ann');
    await page.evaluate(() => Promise.all([window.join('news'), window.join('presence-news')]));
    await page.evaluate(() => { window.seen = []; });
    await herald.stop();
    await Herald.start(t, { port: herald.port });
    for (const channel of ['news', 'presence-news']) {
      await page.waitForFunction((name) => window.seen.some((seen) => seen[0] === name && seen[1] === 'pusher:subscription_succeeded'), channel, { timeout: 30_000 });
      await server.trigger(channel, 'again', {});
      await saw(page, channel, 'again', {});
    }
    assert.deepEqual(page.foreign, [], 'no request went anywhere else');
  });
});
