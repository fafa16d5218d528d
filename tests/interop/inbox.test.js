// The bell in a real browser, with Herald as the only server that the page talks to: two tabs, one user.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import Pusher from 'pusher';
import { chromium } from 'playwright-core';
import { APP, Herald } from './support/herald.js';
import { auth, sessionToken } from './support/identity.js';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const LIMIT = 12 * 1024;

// A page of the app: the five lines of docs/inbox.md, with a token of Clerk's.
const page = (herald, token) => `<!doctype html><html lang="en"><title>App</title><body><h1>App</h1>
<script type="module" src="${herald.url}/inbox.js"></script>
<herald-inbox url="${herald.url}" app-key="${APP.key}"></herald-inbox>
<script>window.Clerk = { session: { getToken: async () => ${JSON.stringify(token)} } }</script>`;

describe('the bell', () => {
  let browser, server, herald, backend, origin;
  before(async () => {
    server = createServer((request, response) => {
      response.setHeader('Content-Type', 'text/html; charset=utf-8');
      response.end(page(herald, sessionToken(new URL(request.url, 'http://x').searchParams.get('user'), { azp: origin })));
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${server.address().port}`;
    herald = await Herald.start(null, { more: auth().replace(/authorized_parties.*/, `authorized_parties = ["${origin}"]`) });
    backend = new Pusher({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: herald.port, useTLS: false });
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS });
  });
  after(async () => { await browser?.close(); server?.close(); await herald?.stop(); });

  const notify = (user, title, more = {}) => backend.post({ path: '/notifications', body: { to: { user_ids: [user] }, type: 'comment.mentioned', title, ...more } });

  async function open(t, user) {
    const context = await browser.newContext();
    t.after(() => context.close());
    const tab = await context.newPage();
    tab.errors = [];
    tab.on('pageerror', (error) => tab.errors.push(error.message));
    await tab.goto(`${origin}/?user=${user}`);
    await tab.waitForFunction(() => document.querySelector('herald-inbox').inbox?.snapshot.status === 'online');
    return tab;
  }
  const badge = (tab, text) => tab.locator('herald-inbox .badge').filter({ hasText: text }).waitFor();
  const items = (tab) => tab.locator('herald-inbox article');

  test('is at most 12 KiB on the wire, and may be loaded by any page', async () => {
    const response = await fetch(`${herald.url}/inbox.js`);
    const text = await response.text();
    assert.equal(response.headers.get('access-control-allow-origin'), '*');
    assert.match(response.headers.get('content-type'), /^text\/javascript/);
    const size = gzipSync(text, { level: 9 }).length;
    assert.ok(size <= LIMIT, `${size} bytes, ${LIMIT} are allowed`);
    const again = await fetch(`${herald.url}/inbox.js`, { headers: { 'If-None-Match': response.headers.get('etag') } });
    assert.equal(again.status, 304);
  });

  test('what arrives shows in every tab, what one tab reads is read in the other, and stays so', async (t) => {
    const [one, other] = [await open(t, 'user_ann'), await open(t, 'user_ann')];
    await notify('user_ann', 'Jane mentioned you', { message: '<b>not bold</b>', action_url: '/posts/1' });
    await badge(one, '1');
    await badge(other, '1');
    await one.locator('herald-inbox .bell').click();
    await items(one).first().waitFor();
    assert.match(await items(one).first().innerText(), /Jane mentioned you[^]*<b>not bold<\/b>/, 'what it says is text');
    await other.locator('herald-inbox .badge').waitFor({ state: 'hidden' }); // seen in one is seen in all
    await items(one).first().hover();
    await one.getByRole('button', { name: 'Mark as read', exact: true }).click();
    const isRead = () => document.querySelector('herald-inbox').inbox.snapshot.items[0].read_at;
    await other.waitForFunction(isRead);
    await one.reload();
    await one.waitForFunction(() => document.querySelector('herald-inbox').inbox?.snapshot.status === 'online');
    await one.waitForFunction(isRead);
    assert.deepEqual([one.errors, other.errors], [[], []]);
  });

  test('is walked by the keyboard alone', async (t) => {
    for (const title of ['First', 'Second', 'Third']) await notify('user_keys', title);
    const tab = await open(t, 'user_keys');
    await badge(tab, '3');
    await tab.locator('herald-inbox .bell').focus();
    await tab.keyboard.press('Enter');
    await items(tab).nth(2).waitFor();
    const focused = () => tab.evaluate(() => document.querySelector('herald-inbox').shadowRoot.activeElement?.querySelector('a')?.textContent);
    await tab.waitForFunction(() => document.querySelector('herald-inbox').shadowRoot.activeElement?.localName === 'article');
    assert.equal(await focused(), 'Third');
    await tab.keyboard.press('ArrowDown');
    assert.equal(await focused(), 'Second');
    await tab.keyboard.press('End');
    assert.equal(await focused(), 'First');
    await tab.keyboard.press('Escape');
    assert.ok(await tab.evaluate(() => document.querySelector('herald-inbox').shadowRoot.activeElement.matches('.bell')), 'the focus is back');
  });

  test('a link that a browser would run leads nowhere, and one user sees nothing of another', async (t) => {
    const tab = await open(t, 'user_bob');
    await assert.rejects(notify('user_bob', 'Click', { action_url: 'javascript:alert(1)' }), /400|status/i);
    await notify('user_carol', 'Not for Bob');
    await notify('user_bob', 'For Bob');
    await badge(tab, '1');
    const titles = await tab.evaluate(() => document.querySelector('herald-inbox').inbox.snapshot.items.map((item) => item.title));
    assert.deepEqual(titles, ['For Bob']);
  });
});
