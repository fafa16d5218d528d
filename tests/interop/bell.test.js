// The bell on pages of all kinds: with the page's own Pusher or Echo instead of a socket, in light and dark, for those who do not see it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import Pusher from 'pusher';
import { chromium } from 'playwright-core';
import { APP, Herald } from './support/herald.js';
import { auth, sessionToken } from './support/identity.js';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const { resolve } = createRequire(import.meta.url);
const SCRIPTS = {
  '/pusher.js': path.join(path.dirname(resolve('pusher-js')), '..', 'web', 'pusher.js'),
  '/echo.js': path.join(path.dirname(resolve('laravel-echo')), 'echo.iife.js'),
};
const AXE = readFileSync(resolve('axe-core/axe.min.js'), 'utf8');

// What the page hands to the bell.
const GIVEN = {
  pusher: 'window.pusher = new Pusher(KEY, OPTIONS); bell.pusher = pusher;',
  echo: "window.echo = new (Echo.default ?? Echo)({ broadcaster: 'pusher', key: KEY, client: new Pusher(KEY, OPTIONS) }); bell.pusher = echo;",
  nothing: '',
};

// `failing`: how often the page's own way to authorize fails first.
const page = (herald, { token, given, failing = 0 }) => `<!doctype html><html lang="en"><title>App</title><main><h1>App</h1>
<script src="/pusher.js"></script><script src="/echo.js"></script>
<script type="module" src="${herald.url}/inbox.js"></script>
<herald-inbox url="${herald.url}" app-key="${APP.key}"></herald-inbox></main>
<script>
  window.Clerk = { session: { getToken: async () => ${JSON.stringify(token)} } };
  const KEY = ${JSON.stringify(APP.key)}, bell = document.querySelector('herald-inbox');
  window.asked = 0;
  const OPTIONS = {
    cluster: 'herald', wsHost: '127.0.0.1', wsPort: ${herald.port}, forceTLS: false, enabledTransports: ['ws'],
    channelAuthorization: { customHandler: async ({ socketId, channelName }, callback) => {
      window.asked += 1;
      if (window.asked <= ${failing}) return callback(Object.assign(new Error('503'), { status: 503 }), null);
      const body = new URLSearchParams({ socket_id: socketId, channel_name: channelName });
      const answer = await fetch(${JSON.stringify(herald.url)} + '/pusher/auth', { method: 'POST', body, headers: { Authorization: 'Bearer ' + await Clerk.session.getToken() } });
      callback(null, await answer.json());
    } },
  };
  ${GIVEN[given]}
</script>`;

describe('the bell on other pages', () => {
  let browser, server, herald, backend, origin;
  before(async () => {
    server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url, 'http://x');
      response.setHeader('Content-Type', SCRIPTS[pathname] ? 'text/javascript' : 'text/html; charset=utf-8');
      if (SCRIPTS[pathname]) return response.end(readFileSync(SCRIPTS[pathname]));
      const { user, given, failing } = Object.fromEntries(searchParams);
      response.end(page(herald, { token: sessionToken(user, { azp: origin }), given, failing }));
    });
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    origin = `http://127.0.0.1:${server.address().port}`;
    herald = await Herald.start(null, { more: auth().replace(/authorized_parties.*/, `authorized_parties = ["${origin}"]`) });
    backend = new Pusher({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: herald.port, useTLS: false });
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS });
  });
  after(async () => { await browser?.close(); server?.close(); await herald?.stop(); });

  const notify = (user, title, more = {}) => backend.post({ path: '/notifications', body: { to: { user_ids: [user] }, type: 'comment.mentioned', title, ...more } });

  async function open(t, query, options) {
    const context = await browser.newContext(options);
    t.after(() => context.close());
    const tab = await context.newPage();
    tab.sockets = [];
    tab.on('websocket', (socket) => tab.sockets.push(socket.url()));
    await tab.goto(`${origin}/?${new URLSearchParams(query)}`);
    await tab.waitForFunction(() => document.querySelector('herald-inbox').inbox?.snapshot.status === 'online');
    return tab;
  }
  const badge = (tab, text) => tab.locator('herald-inbox .badge').filter({ hasText: text }).waitFor();

  for (const given of ['pusher', 'echo']) {
    test(`uses the page's ${given}, and opens no socket of its own`, async (t) => {
      const user = `user_${given}`;
      const tab = await open(t, { user, given });
      await notify(user, 'Hello');
      await badge(tab, '1');
      assert.equal(tab.sockets.length, 1, tab.sockets.join(' '));
      assert.match(tab.sockets[0], /client=js/);
      await tab.locator('herald-inbox').evaluate((bell) => bell.remove());
      const left = await tab.evaluate(() => (window.pusher ?? window.echo.connector.pusher).allChannels().length);
      assert.equal(left, 0, 'the channel was its own: it is left again');
    });
  }

  test('asks again where the page could not authorize it', async (t) => {
    const tab = await open(t, { user: 'user_again', given: 'pusher', failing: 2 });
    await notify('user_again', 'Hello');
    await badge(tab, '1');
    assert.equal(await tab.evaluate(() => window.asked), 3);
  });

  for (const colorScheme of ['light', 'dark']) {
    test(`can be read by all, in ${colorScheme} colours`, async (t) => {
      const user = `user_${colorScheme}`;
      await notify(user, 'Jane mentioned you', { message: 'In a comment on your post', action_url: '/posts/1', actor: { name: 'Jane' } });
      await notify(user, 'Your disk is full', { severity: 'critical' });
      await notify(user, 'An invoice was paid', { severity: 'high', message: 'No. 42' });
      const tab = await open(t, { user, given: 'nothing' }, { colorScheme });
      await tab.evaluate(AXE);
      const violations = () => tab.evaluate(async () => {
        const { violations: found } = await window.axe.run(document, { resultTypes: ['violations'] });
        return found.map(({ id, help, nodes }) => `${id}: ${help} (${nodes.map((node) => node.html).join(' ')})`);
      });
      assert.deepEqual(await violations(), [], 'closed');
      await tab.locator('herald-inbox .bell').click();
      await tab.locator('herald-inbox article').nth(2).waitFor();
      await tab.locator('herald-inbox .panel').evaluate((panel) => Promise.all(panel.getAnimations().map((animation) => animation.finished)));
      assert.deepEqual(await violations(), [], 'open');
      if (process.env.HERALD_SCREENSHOTS) await tab.screenshot({ path: path.join(process.env.HERALD_SCREENSHOTS, `bell-${colorScheme}.png`) });
    });
  }
});
