// pusher-js through a restart of the server: everything is back, and nobody does anything.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backend } from './support/backend.js';
import { connected, connectionInbox, pusherJs, subscribed } from './support/clients.js';
import { Herald } from './support/herald.js';
import { Inbox } from './support/inbox.js';

for (const [how, signal] of [['stops in order', 'SIGTERM'], ['is killed', 'SIGKILL']]) {
  test(`a server that ${how} and comes back finds its clients again`, async (t) => {
    const backend = await Backend.start(t);
    const first = await Herald.start(t);
    const server = backend.connect(first);
    const client = await connected(pusherJs(t, first, backend, { user: 'ann' }));
    const oldSocket = client.connection.socket_id;
    const names = ['news', 'private-news', 'presence-news', 'private-encrypted-news', 'cache-news'];
    const channels = [];
    for (const name of names) channels.push(await subscribed(client, name));
    client.signin();
    await client.user.signinDonePromise;
    const personal = new Inbox();
    client.user.bind('note', personal.as('note'));
    const states = connectionInbox(client);

    const ended = await first.stop(signal);
    if (signal === 'SIGTERM') assert.deepEqual(ended, { code: 0, signal: null });
    await Herald.start(t, { port: first.port });

    await states.until('connected', 30_000);
    assert.notEqual(client.connection.socket_id, oldSocket);
    for (const { inbox } of channels) await inbox.until('pusher:subscription_succeeded');
    await client.user.signinDonePromise;
    for (const name of names) await server.trigger(name, 'after', { name });
    for (const [index, { inbox }] of channels.entries()) assert.deepEqual(await inbox.until('after'), { name: names[index] });
    await subscribed(client, 'marker'); // sent after the subscription to the user's own channel
    await server.sendToUser('ann', 'note', 1);
    assert.equal(await personal.until('note'), 1);
  });
}

test('a client of a server that stops is told 4200', async (t) => {
  const herald = await Herald.start(t);
  const client = await connected(pusherJs(t, herald));
  const closed = new Promise((resolve) => {
    const socket = client.connection.connection.transport.socket;
    const before = socket.onclose;
    socket.onclose = (event) => { resolve(event.code); before?.(event); };
  });
  await Promise.all([herald.stop(), closed]);
  assert.equal(await closed, 4200);
});
