// How fast a page was, measured in a real browser by Google's own `web-vitals`, sent by the snippet of docs/vitals.md, word for word but for the
// address, and found on the page for Prometheus.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Herald } from './support/herald.js';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];
const NAMES = ['lcp_seconds', 'inp_seconds', 'fcp_seconds', 'ttfb_seconds', 'cls'];
const LIBRARY = await readFile(new URL('node_modules/web-vitals/dist/web-vitals.js', import.meta.url), 'utf8');
const DOCS = await readFile(new URL('../../docs/vitals.md', import.meta.url), 'utf8');
const [, SNIPPET] = /```js\n([^]*?)```/.exec(DOCS);

describe('web vitals', () => {
  let browser, herald, pages;
  before(async () => {
    browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS });
    herald = await Herald.start(null);
    pages = createServer((request, response) => {
      const script = request.url === '/web-vitals.js' ? LIBRARY : request.url === '/snippet.js' ? SNIPPET.replace('https://realtime.example.com', herald.url) : null;
      if (script) return response.writeHead(200, { 'content-type': 'text/javascript' }).end(script);
      response.writeHead(200, { 'content-type': 'text/html' }).end(`<!doctype html><meta charset="utf-8"><title>page</title><link rel="icon" href="data:,">
        <script type="importmap">{"imports":{"web-vitals":"/web-vitals.js"}}</script>
        ${request.url === '/' ? '<script type="module" src="/snippet.js"></script>' : ''}
        <h1>Something to look at</h1><button onclick="const end = performance.now() + 100; while (performance.now() < end); this.textContent = 'done'">click</button>`);
    });
    await new Promise((resolve) => pages.listen(0, '127.0.0.1', resolve));
    pages.url = `http://127.0.0.1:${pages.address().port}`;
  });
  after(async () => {
    await browser?.close();
    pages?.closeAllConnections();
    await new Promise((resolve) => (pages ? pages.close(resolve) : resolve()));
    await herald?.stop();
  });

  const open = async (t, path) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    const complaints = [];
    page.on('console', (line) => line.type() === 'error' && complaints.push(line.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.goto(pages.url + path);
    return { page, complaints };
  };
  const value = async (series) => {
    const text = await (await fetch(`${herald.metrics}/metrics`)).text();
    const line = text.split('\n').find((line) => line.startsWith(`herald_web_vitals_${series} `));
    assert.ok(line, `${series}:\n${text}`);
    return Number(line.split(' ')[1]);
  };
  const until = async (what, isSo) => {
    for (const deadline = Date.now() + 10_000; !await isSo();) assert.ok(Date.now() < deadline, `${what}, in time`);
  };

  test('a page reports all five when it is left', async (t) => {
    const { page, complaints } = await open(t, '/');
    await page.getByRole('button').click();
    await page.getByText('done').waitFor();
    await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))); // it is painted
    await page.goto(`${pages.url}/other`);
    for (const name of NAMES) await until(`${name} is counted`, async () => await value(`${name}_count`) >= 1);
    const [lcp, inp, fcp, ttfb, cls] = await Promise.all(NAMES.map((name) => value(`${name}_sum`)));
    for (const seconds of [lcp, inp, fcp, ttfb]) assert.ok(seconds > 0 && seconds < 10, `${[lcp, inp, fcp, ttfb]} are seconds`);
    assert.ok(inp >= 0.1, `the click took 100 ms: ${inp}`);
    assert.ok(ttfb <= fcp && fcp <= lcp, `${ttfb}, ${fcp}, ${lcp}`);
    assert.ok(cls >= 0 && cls < 1, `${cls} is a score`);
    assert.deepEqual(complaints, []);
  });

  test('whole metrics of the library are taken, and fetch with JSON of another origin', async (t) => {
    const { page, complaints } = await open(t, '/other');
    const before = await value('ttfb_seconds_count');
    const answers = await page.evaluate(async (address) => {
      const { onTTFB } = await import('web-vitals');
      const metric = await new Promise((resolve) => onTTFB(resolve));
      const sent = navigator.sendBeacon(address, JSON.stringify(metric));
      const body = JSON.stringify([metric]);
      const asked = await fetch(address, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body, keepalive: true });
      const wrong = await fetch(address, { method: 'POST', body: '{"name":"FID","value":1}' });
      return { entries: metric.entries.length, sent, status: asked.status, limit: asked.headers.get('x-ratelimit-limit'), wrong: wrong.status, said: (await wrong.json()).error.message };
    }, `${herald.url}/v1/vitals`);
    assert.deepEqual({ ...answers, said: null }, { entries: 1, sent: true, status: 204, limit: '600', wrong: 400, said: null });
    assert.match(answers.said, /"FID" is not counted/);
    await until('both are counted', async () => await value('ttfb_seconds_count') === before + 2);
    assert.deepEqual(complaints.filter((line) => !line.includes('400')), []);
  });
});
