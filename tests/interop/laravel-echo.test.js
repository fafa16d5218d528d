// Laravel Echo over pusher-js: what a Laravel application does with a Pusher server.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { Backend } from './support/backend.js';
import { connected, laravelEcho } from './support/clients.js';
import { Herald } from './support/herald.js';
import { Inbox } from './support/inbox.js';

describe('laravel-echo', () => {
  let herald, backend, server;
  before(async () => {
    backend = await Backend.start();
    herald = await Herald.start(null);
    server = backend.connect(herald);
  });
  after(async () => { await herald?.stop(); await backend?.stop(); });

  const echoOf = (t, user) => laravelEcho(t, herald, backend, { user });
  const answered = (channel) => new Promise((resolve, reject) => { channel.subscribed(resolve); channel.error((error) => reject(new Error(JSON.stringify(error)))); });

  for (const [kind, name, open] of [
    ['public', 'orders', (echo) => echo.channel('orders')],
    ['private', 'private-orders', (echo) => echo.private('orders')],
  ]) {
    test(`listens on a ${kind} channel, with and without a namespace`, async (t) => {
      const inbox = new Inbox();
      const channel = open(echoOf(t, 'ann'));
      channel.listen('OrderShipped', inbox.as('namespaced')).listen('.order.shipped', inbox.as('plain'));
      await answered(channel);
      await server.trigger(name, 'App\\Events\\OrderShipped', { id: 1 });
      await server.trigger(name, 'order.shipped', { id: 2 });
      assert.deepEqual(await inbox.next(), { name: 'namespaced', value: { id: 1 } });
      assert.deepEqual(await inbox.next(), { name: 'plain', value: { id: 2 } });
    });
  }

  test('here, joining, leaving', async (t) => {
    const inbox = new Inbox();
    const ann = echoOf(t, 'ann');
    ann.join('room').here(inbox.as('here')).joining(inbox.as('joining')).leaving(inbox.as('leaving'));
    assert.deepEqual(await inbox.next(), { name: 'here', value: [{ name: 'ANN' }] });
    const bob = echoOf(t, 'bob');
    const room = new Inbox();
    bob.join('room').here(room.as('here'));
    assert.deepEqual((await room.next()).value.map(({ name }) => name).sort(), ['ANN', 'BOB']);
    assert.deepEqual(await inbox.next(), { name: 'joining', value: { name: 'BOB' } });
    bob.leave('room');
    assert.deepEqual(await inbox.next(), { name: 'leaving', value: { name: 'BOB' } });
  });

  test('a whisper reaches the others on private and presence channels', async (t) => {
    const [ann, bob] = [echoOf(t, 'ann'), echoOf(t, 'bob')];
    for (const open of [(echo) => echo.private('chat'), (echo) => echo.join('chat')]) {
      const inbox = new Inbox();
      const [mine, theirs] = [open(ann), open(bob)];
      theirs.listenForWhisper('typing', (value) => inbox.push('typing', value));
      await Promise.all([answered(mine), answered(theirs)]);
      mine.whisper('typing', { name: 'Ann' });
      assert.deepEqual(await inbox.next(), { name: 'typing', value: { name: 'Ann' } });
    }
  });

  test('toOthers leaves out the socket that Echo names', async (t) => {
    const echo = echoOf(t, 'ann');
    await connected(echo.connector.pusher);
    const inbox = new Inbox();
    const channel = echo.channel('others').listen('.said', inbox.as('said')).listen('.marker', inbox.as('marker'));
    await answered(channel);
    await server.trigger('others', 'said', {}, { socket_id: echo.socketId() });
    await server.trigger('others', 'marker', {});
    assert.equal((await inbox.next()).name, 'marker');
  });

  test('error gets what the server refuses and what the backend refuses', async (t) => {
    const inbox = new Inbox();
    const echo = echoOf(t, 'ann');
    echo.private('forged').error(inbox.as('forged'));
    assert.equal((await inbox.until('forged')).status, 401);
    echo.private('forbidden').error(inbox.as('forbidden'));
    assert.equal((await inbox.until('forbidden')).status, 403);
  });

  test('leave ends the channel and its private and presence forms', async (t) => {
    const echo = echoOf(t, 'ann');
    await answered(echo.channel('left'));
    await answered(echo.join('left'));
    echo.leave('left');
    await answered(echo.channel('after-left')); // the server has read the unsubscriptions
    const { channels } = await (await server.get({ path: '/channels' })).json();
    assert.deepEqual(Object.keys(channels).filter((name) => /^(presence-)?left$/.test(name)), []);
  });
});
