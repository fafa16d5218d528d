// Webhooks in both directions, by the libraries that people use: what Svix signs is taken, what Herald signs is verified.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import Pusher from 'pusher';
import { Webhook as Standard } from 'standardwebhooks';
import { Webhook as Svix } from 'svix';
import { APP, Herald } from './support/herald.js';
import { auth, sessionToken } from './support/identity.js';
import { Inbox } from './support/inbox.js';

const CLERK_SECRET = 'whsec_9Z4cW1aHOMtFQ33Ng+vLTgyo4pmB2pS9';
const SECRET = 'whsec_bm90IHJlYWxseSBhIHNlY3JldA==';

describe('Standard Webhooks', () => {
  let herald, sender, server;
  const told = new Inbox();
  before(async () => {
    sender = createServer(async (request, response) => {
      let body = '';
      for await (const chunk of request.setEncoding('utf8')) body += chunk;
      told.push('dispatch', { headers: request.headers, body });
      response.writeHead(204).end();
    });
    await new Promise((resolve) => sender.listen(0, '127.0.0.1', resolve));
    const dispatch = `[dispatch]\nurl = "http://127.0.0.1:${sender.address().port}/"\nsecret = "${SECRET}"\n`;
    herald = await Herald.start(null, { more: auth(`webhook_secret = "${CLERK_SECRET}"`) + dispatch });
    server = new Pusher({ appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: herald.port, useTLS: false });
  });
  after(async () => { await herald?.stop(); sender?.close(); });

  // As Clerk's own sender does it: with Svix.
  async function clerk(id, type, data) {
    const body = JSON.stringify({ type, object: 'event', data, timestamp: Date.now() });
    const now = new Date();
    const headers = {
      'svix-id': id, 'svix-timestamp': String(Math.floor(now / 1000)), 'svix-signature': new Svix(CLERK_SECRET).sign(id, now, body),
    };
    return fetch(`${herald.url}/webhooks/clerk`, { method: 'POST', headers, body });
  }

  test('what Svix signs is taken, once, and what was changed on the way is not', async () => {
    const user = {
      id: 'user_ann', first_name: 'Ann', last_name: 'Lee', image_url: 'https://img.example/a', banned: false, updated_at: Date.now(),
      primary_email_address_id: 'e', email_addresses: [{ id: 'e', email_address: 'ann@example.com', verification: { status: 'verified' } }],
    };
    for (let repetition = 0; repetition < 2; repetition += 1) assert.ok((await clerk('msg_1', 'user.created', user)).ok);
    const authorize = () => fetch(`${herald.url}/pusher/auth`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${sessionToken('user_ann')}` },
      body: new URLSearchParams({ socket_id: '1.1', channel_name: 'private-user-user_ann' }),
    });
    assert.equal((await authorize()).status, 200);
    assert.ok((await clerk('msg_2', 'session.revoked', { id: 'sess_user_ann', user_id: 'user_ann', status: 'revoked' })).ok);
    assert.equal((await authorize()).status, 401);
    const changed = new Svix(CLERK_SECRET).sign('msg_3', new Date(), '{}');
    const headers = { 'svix-id': 'msg_3', 'svix-timestamp': String(Math.floor(Date.now() / 1000)), 'svix-signature': changed };
    const refused = await fetch(`${herald.url}/webhooks/clerk`, { method: 'POST', headers, body: '{"type":"user.deleted"}' });
    assert.equal(refused.status, 400);
  });

  test('what Herald signs is verified by both libraries', async () => {
    await server.post({
      path: '/notifications',
      body: { to: { user_ids: ['user_ann'] }, type: 'comment.mentioned', title: 'Jane mentioned you', channels: ['email'] },
    });
    const { headers, body } = await told.until('dispatch');
    const payload = new Standard(SECRET).verify(body, headers);
    new Svix(SECRET).verify(body, headers); // throws if it is not right
    assert.equal(payload.type, 'notification.dispatch');
    const { user, notifications: [notification] } = payload.data;
    assert.deepEqual([user.id, user.email, notification.title, notification.channels],
      ['user_ann', 'ann@example.com', 'Jane mentioned you', ['email']]);
    assert.throws(() => new Standard(SECRET).verify(body.replace('Jane', 'Joan'), headers));
  });
});
