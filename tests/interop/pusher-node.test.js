// The npm package `pusher`, as a backend uses it: triggers, batches, questions, errors.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import PusherServer from 'pusher';
import { Backend, pusherFor } from './support/backend.js';
import { connected, pusherJs, subscribed } from './support/clients.js';
import { APP, Herald } from './support/herald.js';

describe('npm pusher', () => {
  let herald, backend, server;
  before(async () => {
    backend = await Backend.start();
    herald = await Herald.start(null);
    server = backend.connect(herald);
  });
  after(async () => { await herald?.stop(); await backend?.stop(); });

  const user = (t, name) => pusherJs(t, herald, backend, { user: name });
  const get = async (path, params) => (await server.get({ path, params })).json();
  const refused = async (promise) => { const error = await promise.then(() => assert.fail('it was accepted'), (error) => error); assert.ok(error instanceof PusherServer.RequestError, String(error)); return error; };

  test('one trigger reaches up to a hundred channels, in order', async (t) => {
    const client = user(t, 'ann');
    const names = Array.from({ length: 100 }, (_, i) => `many-${i}`);
    const channels = await Promise.all(names.map((name) => subscribed(client, name)));
    await server.trigger(names, 'hello', { n: 1 });
    for (const { inbox } of channels) assert.deepEqual(await inbox.until('hello'), { n: 1 });
  });

  test('a hundred triggers one after another arrive in their order', async (t) => {
    const { inbox } = await subscribed(user(t, 'ann'), 'ordered');
    for (let n = 0; n < 100; n++) await server.trigger('ordered', 'n', n);
    for (let n = 0; n < 100; n++) assert.equal(await inbox.until('n'), n);
  });

  test('a trigger answers the counts that were asked for', async (t) => {
    await subscribed(user(t, 'ann'), 'presence-info');
    await subscribed(user(t, 'bob'), 'presence-info');
    const answer = await server.trigger(['presence-info', 'nobody'], 'e', {}, { info: 'user_count,subscription_count' });
    const { channels } = await answer.json();
    assert.equal(channels['presence-info'].user_count, 2);
    assert.equal(channels['presence-info'].subscription_count, 2);
    assert.equal(channels.nobody.subscription_count, 0);
  });

  test('a batch arrives whole and in order', async (t) => {
    const { inbox } = await subscribed(user(t, 'ann'), 'batched');
    await server.triggerBatch(Array.from({ length: 10 }, (_, n) => ({ channel: 'batched', name: 'n', data: n })));
    for (let n = 0; n < 10; n++) assert.equal(await inbox.until('n'), n);
  });

  test('a batch of eleven is refused with the limit', async () => {
    const error = await refused(server.triggerBatch(Array.from({ length: 11 }, () => ({ channel: 'c', name: 'n', data: '' }))));
    assert.equal(error.status, 400);
    assert.match(JSON.parse(error.body).error, /10/);
  });

  test('an encrypted event is one the client can read', async (t) => {
    const { inbox } = await subscribed(user(t, 'ann'), 'private-encrypted-batch');
    await server.triggerBatch([{ channel: 'private-encrypted-batch', name: 'e', data: { a: 1 } }]);
    assert.deepEqual(await inbox.until('e'), { a: 1 });
  });

  test('occupied channels are listed, filtered and counted', async (t) => {
    const client = user(t, 'ann');
    for (const name of ['listed', 'presence-listed', 'presence-listed-too']) await subscribed(client, name);
    const { channels } = await get('/channels', { filter_by_prefix: 'presence-listed', info: 'user_count' });
    assert.deepEqual(channels, { 'presence-listed': { user_count: 1 }, 'presence-listed-too': { user_count: 1 } });
    assert.ok('listed' in (await get('/channels')).channels);
    assert.equal((await refused(server.get({ path: '/channels', params: { info: 'user_count' } }))).status, 400);
  });

  test('a channel says whether it is occupied, and by how many', async (t) => {
    await subscribed(user(t, 'ann'), 'presence-one');
    assert.deepEqual(await get('/channels/presence-one', { info: 'user_count,subscription_count' }), { occupied: true, user_count: 1, subscription_count: 1 });
    assert.equal((await get('/channels/empty')).occupied, false);
  });

  test('a cache channel answers what it keeps', async () => {
    await server.trigger('cache-asked', 'e', { kept: true });
    const { cache } = await get('/channels/cache-asked', { info: 'cache' });
    assert.match(JSON.stringify(cache), /kept/);
    assert.ok(cache.ttl > 1700 && cache.ttl <= 1800);
    assert.equal((await get('/channels/cache-empty', { info: 'cache' })).cache, null);
  });

  test('the users of a presence channel are listed, each once', async (t) => {
    for (const name of ['ann', 'bob', 'bob']) await subscribed(user(t, name), 'presence-users');
    const { users } = await get('/channels/presence-users/users');
    assert.deepEqual(users.map(({ id }) => id).sort(), ['ann', 'bob']);
    assert.equal((await refused(server.get({ path: '/channels/plain/users' }))).status, 400);
  });

  test('connections are counted', async (t) => {
    await connected(user(t, 'ann'));
    assert.ok((await get('/connections')).connections >= 1);
  });

  test('a wrong secret is refused with 401 and says what had to be signed', async () => {
    const error = await refused(pusherFor(herald, { secret: 'wrong' }).trigger('c', 'e', {}));
    assert.equal(error.status, 401);
    assert.match(error.body, /POST/);
    assert.doesNotMatch(error.body, new RegExp(APP.secret));
  });

  test('an unknown app is refused with 404', async () => {
    assert.equal((await refused(pusherFor(herald, { appId: 'no-such-app' }).trigger('c', 'e', {}))).status, 404);
  });

  test('an unknown key is refused with 401', async () => {
    assert.equal((await refused(pusherFor(herald, { key: 'no-such-key' }).trigger('c', 'e', {}))).status, 401);
  });

  test('10,240 bytes of data pass, one more is refused with 413 and the limit', async (t) => {
    const { inbox } = await subscribed(user(t, 'ann'), 'large');
    await server.trigger('large', 'fits', 'x'.repeat(10_240));
    assert.equal((await inbox.until('fits')).length, 10_240);
    const error = await refused(server.trigger('large', 'too-large', 'x'.repeat(10_241)));
    assert.equal(error.status, 413);
    assert.match(error.body, /10240/);
  });

  test('events of the server itself cannot be triggered', async () => {
    assert.equal((await refused(server.trigger('c', 'pusher:fake', {}))).status, 400);
  });

  test('a user id with characters that a path escapes is terminated', async (t) => {
    const client = user(t, 'a@b c');
    await connected(client);
    client.signin();
    await client.user.signinDonePromise;
    const closed = new Promise((resolve) => client.connection.bind('disconnected', resolve));
    await server.post({ path: `/users/${encodeURIComponent('a@b c')}/terminate_connections`, body: {} });
    await closed;
  });
});
