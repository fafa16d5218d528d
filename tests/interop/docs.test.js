// The page that describes the API, in a real browser: it shows every operation, and its policy lets nothing else run.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chromium } from 'playwright-core';
import { Herald } from './support/herald.js';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

test('the page shows what the document describes', async (t) => {
  const herald = await Herald.start(t);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  t.after(() => browser.close());
  const page = await browser.newPage();
  const complaints = [];
  page.on('console', (line) => line.type() === 'error' && complaints.push(line.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.goto(`${herald.url}/docs#create_notification`);
  const document = await (await fetch(`${herald.url}/openapi.json`)).json();
  const operations = Object.values(document.paths).flatMap(Object.keys).length;
  await page.locator('details').nth(operations - 1).waitFor({ state: 'attached' });
  assert.equal(await page.locator('details').count(), operations);
  const create = page.locator('#create_notification');
  assert.ok(await create.evaluate((element) => element.open), 'the operation that the address names is open');
  const text = await create.innerText();
  for (const part of ['/v1/notifications', 'HERALD_API_KEY', 'comment.mentioned', '1 to 500 characters', 'ANSWER 202', 'transaction_id']) {
    assert.ok(text.includes(part), `${part}: ${text}`);
  }
  assert.deepEqual(complaints, []);
  const refused = await page.evaluate(() => new Promise((resolve) => {
    document.addEventListener('securitypolicyviolation', ({ violatedDirective }) => resolve(violatedDirective));
    document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.ran = true' }));
  }));
  assert.match(refused, /script-src/);
  assert.equal(await page.evaluate(() => window.ran), undefined);
});
