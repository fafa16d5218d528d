// Herald as the only auth endpoint: pusher-js, unmodified, with Clerk's session tokens and no backend of the app's own.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { verifyToken } from '@clerk/backend';
import nacl from 'tweetnacl';
import { Backend } from './support/backend.js';
import { pusherJs, signedIn, subscribed } from './support/clients.js';
import { Herald } from './support/herald.js';
import { auth, handlers, PARTY, PEM, sessionToken } from './support/identity.js';
import { Inbox } from './support/inbox.js';

const MASTER_KEY = Buffer.alloc(32, 7).toString('base64');

describe('Clerk', () => {
  let herald, backend, server;
  before(async () => {
    const more = auth(`encryption_master_key = "${MASTER_KEY}"\n[[auth.rules]]\nchannels = ["room-*", "notes-{user_id}"]`);
    herald = await Herald.start(null, { more });
    backend = await Backend.start(); // triggers only: it authorizes nobody here
    server = backend.connect(herald);
  });
  after(async () => { await herald?.stop(); await backend?.stop(); });

  const client = (t, user, claims) => pusherJs(t, herald, undefined, handlers(herald.url, async () => sessionToken(user, claims)));

  test("Clerk's own library accepts the tokens of these tests", async () => {
    const claims = await verifyToken(sessionToken('user_ann'), { jwtKey: PEM, authorizedParties: [PARTY] });
    assert.equal(claims.sub, 'user_ann');
  });

  test('a user gets what is sent to the own channel', async (t) => {
    const { inbox } = await subscribed(client(t, 'user_ann'), 'private-user-user_ann');
    await server.trigger('private-user-user_ann', 'hello', { to: 'ann' });
    assert.deepEqual(await inbox.until('hello'), { to: 'ann' });
  });

  test('members of a presence channel are who their tokens say', async (t) => {
    const ann = await subscribed(client(t, 'user_ann'), 'presence-room-1');
    const bob = await subscribed(client(t, 'user_bob'), 'presence-room-1');
    assert.deepEqual(Object.keys(bob.answer.members).sort(), ['user_ann', 'user_bob']);
    const { id, info } = await ann.inbox.until('pusher:member_added');
    assert.deepEqual([id, info], ['user_bob', { id: 'user_bob' }]);
  });

  test('the sign-in is the user of the token, whom a backend reaches', async (t) => {
    const ann = client(t, 'user_signed_in');
    const seen = new Inbox();
    ann.user.bind('hello', (data) => seen.push('hello', data));
    await signedIn(ann);
    assert.equal(ann.user.user_data.id, 'user_signed_in');
    await server.sendToUser('user_signed_in', 'hello', { n: 1 });
    assert.deepEqual(await seen.until('hello'), { n: 1 });
  });

  test('an encrypted channel is read with the secret that Herald hands out', async (t) => {
    const { default: Pusher } = await import('pusher');
    const encrypting = new Pusher({ appId: 'app-id', key: 'app-key', secret: 'app-secret', host: '127.0.0.1', port: herald.port, useTLS: false, encryptionMasterKeyBase64: MASTER_KEY });
    const { inbox } = await subscribed(client(t, 'user_ann'), 'private-encrypted-notes-user_ann');
    await encrypting.trigger('private-encrypted-notes-user_ann', 'note', { secret: 42 });
    assert.deepEqual(await inbox.until('note'), { secret: 42 });
    assert.ok(nacl.secretbox, 'the client decrypts by itself');
  });

  for (const [what, channel, claims, status] of [
    ["another user's channel", 'private-user-user_bob', {}, 403],
    ['a channel about which no rule speaks', 'private-anything', {}, 403],
    ['a channel of an organization that is not the active one', 'private-org-org_1', {}, 403],
    ['a token that is over', 'private-user-user_ann', { exp: 1, nbf: 0, iat: 0 }, 401],
    ['a token that was made for another page', 'private-user-user_ann', { azp: 'https://evil.example' }, 401],
    ['a session that is not complete', 'private-user-user_ann', { sts: 'pending' }, 401],
  ]) {
    test(`refused: ${what}`, async (t) => {
      const subscription = client(t, 'user_ann', claims).subscribe(channel);
      const error = await new Promise((resolve, reject) => {
        subscription.bind('pusher:subscription_error', resolve);
        subscription.bind('pusher:subscription_succeeded', () => reject(new Error('subscribed')));
      });
      assert.match(JSON.stringify(error), new RegExp(`auth ${status}`));
    });
  }

  test('an organization is the one of the token', async (t) => {
    const { inbox } = await subscribed(client(t, 'user_ann', { o: { id: 'org_1', rol: 'member' } }), 'private-org-org_1-news');
    await server.trigger('private-org-org_1-news', 'news', 1);
    assert.equal(await inbox.until('news'), 1);
  });
});
