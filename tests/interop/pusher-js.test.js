// pusher-js, unmodified, on Node: the whole tour of channels, client events and users.
import assert from 'node:assert/strict';
import { before, after, describe, test } from 'node:test';
import { Backend } from './support/backend.js';
import { channelInbox, connected, connectionInbox, pusherJs, signedIn, subscribed } from './support/clients.js';
import { Herald } from './support/herald.js';
import { Inbox } from './support/inbox.js';

describe('pusher-js', () => {
  let herald, backend, server;
  before(async () => {
    backend = await Backend.start();
    herald = await Herald.start(null, { app: { subscription_count: true } });
    server = backend.connect(herald);
  });
  after(async () => { await herald?.stop(); await backend?.stop(); });

  const user = (t, name) => pusherJs(t, herald, backend, { user: name });

  test('connects and is told its socket id', async (t) => {
    const client = await connected(pusherJs(t, herald, backend));
    assert.match(client.connection.socket_id, /^[1-9]\d*\.[1-9]\d*$/);
  });

  test('an unknown key is refused with 4001 and the client gives up', async (t) => {
    const { default: Pusher } = await import('pusher-js');
    const { options } = await import('./support/clients.js');
    const client = new Pusher('no-such-key', options(herald, backend));
    t.after(() => client.disconnect());
    const inbox = connectionInbox(client);
    const error = await inbox.until('error');
    assert.equal(error.data?.code ?? error.error?.data?.code, 4001);
    await inbox.until((entry) => entry.name === 'disconnected' || entry.name === 'failed');
  });

  for (const channel of ['news', 'private-news', 'presence-news']) {
    test(`${channel}: what the backend triggers arrives, until the client leaves`, async (t) => {
      const client = user(t, 'ann');
      const { inbox } = await subscribed(client, channel);
      await server.trigger(channel, 'first', { text: 'größer than ASCII: ✓', list: [1, 2] });
      assert.deepEqual(await inbox.until('first'), { text: 'größer than ASCII: ✓', list: [1, 2] });

      client.unsubscribe(channel);
      const marker = await subscribed(client, `marker-${channel}`); // in order on one connection: the server has read the unsubscribe
      await server.trigger([channel, `marker-${channel}`], 'second', {});
      await marker.inbox.until('second');
      await assert.rejects(inbox.until('second', 200));
    });
  }

  test('text that is not JSON arrives as it was sent', async (t) => {
    const { inbox } = await subscribed(user(t, 'ann'), 'texts');
    await server.trigger('texts', 'text', 'not { JSON');
    assert.equal(await inbox.until('text'), 'not { JSON');
  });

  test('the sender named by socket_id is left out', async (t) => {
    const [sender, other] = await Promise.all([connected(user(t, 'ann')), connected(user(t, 'bob'))]);
    const [mine, theirs] = [await subscribed(sender, 'echoes'), await subscribed(other, 'echoes')];
    await server.trigger('echoes', 'said', 1, { socket_id: sender.connection.socket_id });
    await server.trigger('echoes', 'marker', 2);
    assert.equal(await theirs.inbox.until('said'), 1);
    const next = await mine.inbox.until((entry) => !entry.name.startsWith('pusher:'));
    assert.equal(next, 2, 'the marker comes first: the event before it was not for the sender');
  });

  test('a private channel that the backend refuses reports the error', async (t) => {
    const channel = user(t, 'ann').subscribe('private-forbidden');
    const error = await channelInbox(channel).until('pusher:subscription_error');
    assert.equal(error.status, 403);
  });

  test('a forged signature reaches the channel as subscription_error and harms nothing else', async (t) => {
    const client = user(t, 'ann');
    const error = await channelInbox(client.subscribe('private-forged')).until('pusher:subscription_error');
    assert.equal(error.type, 'AuthError');
    assert.equal(error.status, 401);
    assert.match(error.error, /private-forged/, 'it names the string that had to be signed');
    await subscribed(client, 'private-well');
  });

  test('a presence channel shows who is here, comes and goes', async (t) => {
    const ann = user(t, 'ann');
    const { channel, inbox, answer } = await subscribed(ann, 'presence-room');
    assert.equal(answer.count, 1);
    assert.deepEqual(channel.members.me, { id: 'ann', info: { name: 'ANN' } });

    const bob = user(t, 'bob');
    const bobs = await subscribed(bob, 'presence-room');
    assert.equal(bobs.answer.count, 2);
    assert.deepEqual(bobs.channel.members.get('ann'), { id: 'ann', info: { name: 'ANN' } });
    assert.deepEqual(await inbox.until('pusher:member_added'), { id: 'bob', info: { name: 'BOB' } });

    bob.disconnect();
    assert.deepEqual(await inbox.until('pusher:member_removed'), { id: 'bob', info: { name: 'BOB' } });
    assert.equal(channel.members.count, 1);
  });

  test('a user with two tabs comes once and leaves once', async (t) => {
    const { inbox } = await subscribed(user(t, 'ann'), 'presence-tabs');
    const [tab, other] = [user(t, 'bob'), user(t, 'bob')];
    await subscribed(tab, 'presence-tabs');
    await inbox.until('pusher:member_added');
    await subscribed(other, 'presence-tabs');
    other.unsubscribe('presence-tabs');
    await subscribed(other, 'marker-tabs'); // the server has read the unsubscribe
    await server.trigger('presence-tabs', 'marker', 1);
    assert.equal((await inbox.next()).name, 'marker', 'neither the second tab nor its end was announced');
    tab.disconnect();
    assert.equal((await inbox.until('pusher:member_removed')).id, 'bob');
  });

  test('an encrypted channel is decrypted by the client, and only by it', async (t) => {
    const { inbox } = await subscribed(user(t, 'ann'), 'private-encrypted-vault');
    await server.trigger('private-encrypted-vault', 'secret', { word: 'swordfish' });
    assert.deepEqual(await inbox.until('secret'), { word: 'swordfish' });
  });

  for (const [channel, prefix] of [['cache-a', 'public'], ['private-cache-a', 'private'], ['private-encrypted-cache-a', 'encrypted'], ['presence-cache-a', 'presence']]) {
    test(`${channel}: a miss at first, then the last event for whoever comes later (${prefix})`, async (t) => {
      const first = await subscribed(user(t, 'ann'), channel);
      await first.inbox.until('pusher:cache_miss');
      await server.trigger(channel, 'kept', { n: 1 });
      await server.trigger(channel, 'kept', { n: 2 });
      await first.inbox.until('kept');
      const later = await subscribed(user(t, 'bob'), channel);
      assert.deepEqual(await later.inbox.until((entry) => entry.name === 'kept' || entry.name === 'pusher:cache_miss'), { n: 2 });
    });
  }

  test('client events reach the others, with the sender on presence channels', async (t) => {
    const ann = await subscribed(user(t, 'ann'), 'presence-typing');
    const bob = await subscribed(user(t, 'bob'), 'presence-typing');
    const bobs = new Inbox();
    bob.channel.bind('client-typing', bobs.as('client-typing'));
    assert.ok(ann.channel.trigger('client-typing', { key: 'x' }));
    assert.deepEqual(await bobs.next(), { name: 'client-typing', value: { value: { key: 'x' }, user_id: 'ann' } });
    await server.trigger('presence-typing', 'marker', 1);
    assert.equal(await ann.inbox.until((entry) => entry.name === 'marker' || entry.name.startsWith('client-')), 1, 'never back to the sender');
  });

  test('client events on a public channel are refused with 4301, and the connection stays', async (t) => {
    const client = user(t, 'ann');
    const { channel, inbox } = await subscribed(client, 'public-typing');
    const errors = new Inbox();
    client.connection.bind('error', errors.as('error'));
    channel.trigger('client-typing', {});
    const error = await errors.until('error');
    assert.equal(error.data?.code ?? error.error?.data?.code, 4301);
    await server.trigger('public-typing', 'still', 1);
    await inbox.until('still');
  });

  test('the number of subscriptions is announced where the app wants it', async (t) => {
    const { channel, inbox } = await subscribed(user(t, 'ann'), 'counted');
    await subscribed(user(t, 'bob'), 'counted');
    await inbox.until((entry) => entry.name === 'pusher:subscription_count' && entry.value.subscription_count === 2);
    assert.equal(channel.subscriptionCount, 2);
  });

  test('a user signs in, and what is sent to the user reaches all of its tabs and nobody else', async (t) => {
    const clients = [user(t, 'carol'), user(t, 'carol'), user(t, 'dave')];
    const inboxes = clients.map((client) => { const inbox = new Inbox(); client.user.bind('greeting', inbox.as('greeting')); return inbox; });
    for (const client of clients) await signedIn(client);
    await server.sendToUser('carol', 'greeting', { hello: 'carol' });
    await server.sendToUser('dave', 'greeting', { hello: 'dave' });
    assert.deepEqual((await inboxes[0].next()).value, { hello: 'carol' });
    assert.deepEqual((await inboxes[1].next()).value, { hello: 'carol' });
    assert.deepEqual((await inboxes[2].next()).value, { hello: 'dave' });
  });

  test('a signed-in user joins a presence channel without channel_data', async (t) => {
    const client = pusherJs(t, herald, backend, {
      user: 'erin',
      channelAuthorization: { customHandler: ({ socketId, channelName }, done) => done(null, server.authorizeChannel(socketId, channelName)) },
    });
    client.signin();
    const { channel } = await subscribed(client, 'presence-signed-in');
    assert.deepEqual(channel.members.me, { id: 'erin', info: { name: 'ERIN' } });
  });

  test('a watchlist tells who is online, who comes, and after the grace who left', async (t) => {
    backend.watchlists.frank = ['grace', 'heidi'];
    const grace = user(t, 'grace');
    await signedIn(grace);
    const frank = user(t, 'frank');
    const inbox = new Inbox();
    for (const name of ['online', 'offline']) frank.user.watchlist.bind(name, ({ user_ids }) => inbox.push(name, user_ids));
    await signedIn(frank);
    const present = [await inbox.next(), await inbox.next()].sort((a, b) => b.name.localeCompare(a.name));
    assert.deepEqual(present, [{ name: 'online', value: ['grace'] }, { name: 'offline', value: ['heidi'] }]);
    await signedIn(user(t, 'heidi'));
    assert.deepEqual(await inbox.next(), { name: 'online', value: ['heidi'] });
    grace.disconnect();
    assert.deepEqual(await inbox.next(), { name: 'offline', value: ['grace'] });
  });

  test('terminating a user closes its connections with 4009, and they do not come back', async (t) => {
    const client = user(t, 'mallory');
    await signedIn(client);
    const inbox = connectionInbox(client);
    await server.terminateUserConnections('mallory');
    const error = await inbox.until('error');
    assert.equal(error.data?.code ?? error.error?.data?.code, 4009);
    await inbox.until('disconnected');
  });
});

// Returns when the server has also taken the subscription to the user's own channel.
