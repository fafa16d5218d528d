// Crisp by its own libraries: what Herald asks of the REST API is what `crisp-api` asks, what `crisp-api` takes for a hook Herald takes, and the snippets
// of docs/support.md tell the chat what `crisp-sdk-web` tells it.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { Crisp } from 'crisp-api';
import { pusherFor } from './support/backend.js';
import { pusherJs, subscribed } from './support/clients.js';
import { Herald } from './support/herald.js';
import { auth, handlers, sessionToken } from './support/identity.js';
import { Inbox } from './support/inbox.js';

const WEBSITE = '6c50f7a8-680f-3657-f5fd-cc3a1a952a17';
const TOKEN = ['7c3ef21c-1e04-41ce-8c06-5605c346f73e', 'cc29e1a5086e428f'];
const SECRET = '4f6a2363f9b05f88819c90e2904704f7eb07d567797567d3130624eef3719a45';
const IDENTITY = '2d8ec0d1cbcf268751e351d9dcb986d0ba02af8d9d1495259448b466c7858e24';
const EMAIL = 'Jane.Doe+tag@Example.com';

// Crisp's REST API, as far as it is asked here: every conversation is the user's.
class Api {
  asked = new Inbox();

  async start() {
    this.server = createServer(async (request, response) => {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const { authorization, 'x-crisp-tier': tier } = request.headers;
      const body = Buffer.concat(chunks).toString();
      this.asked.push('request', { method: request.method, path: request.url, authorization, tier, body: body ? JSON.parse(body) : null });
      const data = request.url.endsWith('/meta') ? { email: EMAIL, nickname: 'Jane', data: {} } : { is_verified: true, verifications: [], state: 'unresolved' };
      response.writeHead(request.method === 'POST' ? 202 : 200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: false, reason: 'resolved', data }));
    });
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  async next() { return (await this.asked.next()).value; }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

describe('Crisp', () => {
  let api, herald, client;
  before(async () => {
    api = await new Api().start();
    const crisp = { website_id: WEBSITE, token_id: TOKEN[0], token_key: TOKEN[1], signing_secrets: [SECRET], identity_secret: IDENTITY, api_url: api.url };
    const options = Object.entries(crisp).map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join('\n');
    herald = await Herald.start(null, { more: `${auth()}[integrations.crisp]\n${options}\n` });
    client = new Crisp();
    client.setRestHost(api.url);
    client.authenticateTier('plugin', ...TOKEN);
    client.setRtmMode('webhooks');
    await client.on('message:received', () => {});
    const user = { email: EMAIL, name: 'Jane Doe', image_url: 'https://img.example/jane', public_metadata: { subscription: 'pro', signup_date: '2026-01-31' } };
    assert.equal((await backend('PUT', '/v1/users/user_jane', user)).status, 204);
  });
  after(async () => { await herald?.stop(); await api?.stop(); });

  const backend = (method, path, said) => {
    const body = JSON.stringify(said);
    const query = pusherFor(herald).createSignedQueryString({ method, path, body });
    return fetch(`${herald.url}${path}?${query}`, { method, headers: { 'Content-Type': 'application/json' }, body });
  };
  const tell = async (event, data, { secret = SECRET, timestamp = Date.now() } = {}) => {
    const body = { website_id: WEBSITE, event, data: { website_id: WEBSITE, session_id: 'session_1', ...data }, timestamp: Date.now() };
    const text = JSON.stringify(body);
    const signature = createHmac('sha256', secret).update(`[${timestamp};${text}]`).digest('hex');
    const headers = { 'X-Crisp-Signature': signature, 'X-Crisp-Request-Timestamp': String(timestamp), 'Content-Type': 'application/json' };
    const { status } = await fetch(`${herald.url}/webhooks/crisp`, { method: 'POST', headers, body: text });
    return { status, byLibrary: client.verifyHook(SECRET, body, timestamp, signature) };
  };

  test('what the library takes for a hook is taken, and nothing else', async () => {
    assert.deepEqual(await tell('session:set_nickname', { nickname: 'Zoë "x" \u2028' }), { status: 200, byLibrary: true });
    assert.deepEqual(await tell('session:set_nickname', {}, { secret: 'another' }), { status: 403, byLibrary: false });
  });

  test('a reply reaches the page, and Crisp is asked as its library asks', async (t) => {
    const page = pusherJs(t, herald, undefined, handlers(herald.url, async () => sessionToken('user_jane')));
    const { inbox } = await subscribed(page, 'private-user-user_jane');
    const reply = { type: 'text', from: 'operator', origin: 'chat', content: 'How can I help?', fingerprint: 163239623329114, user: { user_id: 'op', nickname: 'Ann' } };
    assert.deepEqual(await tell('message:received', reply), { status: 200, byLibrary: true });
    const { notification } = await inbox.until('notification.created');
    assert.deepEqual([notification.type, notification.message, notification.actor], ['support.message', 'How can I help?', { name: 'Ann' }]);
    assert.equal((await backend('POST', '/v1/support/messages', { user_id: 'user_jane', text: 'On its way' })).status, 202);
    const ours = [await api.next(), await api.next(), await api.next()];
    assert.equal(ours.at(-1).path, `/v1/website/${WEBSITE}/conversation/session_1/message`, 'into her own conversation');

    await client.website.getConversation(WEBSITE, 'session_1');
    await client.website.getConversationMetas(WEBSITE, 'session_1');
    const { fingerprint } = ours.at(-1).body;
    await client.website.sendMessageInConversation(WEBSITE, 'session_1', { type: 'text', from: 'operator', origin: 'chat', content: 'On its way', fingerprint });
    assert.deepEqual(ours, [await api.next(), await api.next(), await api.next()]);
  });

  test('whether Crisp is well is asked as its library asks', async () => {
    const { services } = await (await fetch(`${herald.url}/health/integrations`)).json();
    assert.equal(services.find(({ service }) => service === 'crisp').details.status, 'ok');
    const ours = await api.next();
    await client.plugin.checkConnectSessionValidity();
    assert.deepEqual(ours, await api.next());
  });

  test('the snippets tell the chat who the user is, and forget it', async () => {
    const page = await readFile(new URL('../../docs/support.md', import.meta.url), 'utf8');
    const snippets = [...page.matchAll(/```js\n([^]*?)```/g)].map(([, code]) => code.replaceAll('https://realtime.example.com', herald.url));
    assert.equal(snippets.length, 2);
    // A page, as far as they touch one.
    const scripts = [];
    const head = { append: (script) => scripts.push(script), appendChild: (script) => scripts.push(script) };
    Object.assign(globalThis, { window: globalThis, document: { head, createElement: () => ({}), getElementsByTagName: () => [head] } });
    const sdk = await import('crisp-sdk-web');
    const getToken = async () => sessionToken('user_jane');
    const identity = await (await fetch(`${herald.url}/v1/support/identity`, { headers: { Authorization: `Bearer ${await getToken()}` } })).json();
    for (const [position, code] of snippets.entries()) {
      const script = code.replace(/^import .*$/m, '').replaceAll('export ', '');
      const { openChat, closeChat } = new Function('Crisp', `${script}\nreturn { openChat, closeChat };`)(sdk.Crisp);
      globalThis.$crisp = undefined;
      await openChat(getToken);
      assert.deepEqual([CRISP_WEBSITE_ID, CRISP_TOKEN_ID, scripts.length], [WEBSITE, identity.token_id, position + 1]);
      assert.match(scripts.at(-1).src, /^https:\/\/client\.crisp\.chat\/l\.js/);
      const signature = createHmac('sha256', IDENTITY).update(EMAIL).digest('hex');
      const data = [['user_id', 'user_jane'], ['subscription', 'pro'], ['signup_date', '2026-01-31']];
      const told = $crisp.filter(([verb]) => verb === 'set');
      assert.deepEqual(told, [
        ['set', 'user:email', [EMAIL, signature]],
        ['set', 'user:nickname', ['Jane Doe']],
        ['set', 'user:avatar', ['https://img.example/jane']],
        ['set', 'session:data', [data]],
      ]);
      closeChat();
      assert.deepEqual($crisp.at(-1).slice(0, 2), ['do', 'session:reset']);
      assert.ok(!globalThis.CRISP_TOKEN_ID);
    }
  });
});
