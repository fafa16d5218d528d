// pusher-js and Laravel Echo as an application would create them: only host and port are ours.
import Echo from 'laravel-echo';
import Pusher from 'pusher-js';
import nacl from 'tweetnacl';
import { APP } from './herald.js';
import { Inbox } from './inbox.js';

export function options(herald, backend, user) {
  const headers = user ? { 'X-User': user } : {};
  return {
    cluster: 'herald', wsHost: '127.0.0.1', wsPort: herald.port, forceTLS: false, enabledTransports: ['ws'], enableStats: false,
    channelAuthorization: { endpoint: `${backend?.url}/pusher/auth`, transport: 'ajax', headers },
    userAuthentication: { endpoint: `${backend?.url}/pusher/user-auth`, transport: 'ajax', headers },
  };
}

export function pusherJs(t, herald, backend, { user, ...more } = {}) {
  const client = new Pusher(APP.key, { ...options(herald, backend, user), nacl, ...more });
  t.after(() => client.disconnect());
  return client;
}

export function laravelEcho(t, herald, backend, { user } = {}) {
  const echo = new Echo({ broadcaster: 'pusher', Pusher, key: APP.key, ...options(herald, backend, user) });
  t.after(() => echo.disconnect());
  return echo;
}

// Notes each change of the connection's state and each error.
export function connectionInbox(client) {
  const inbox = new Inbox();
  client.connection.bind('state_change', ({ current }) => inbox.push(current));
  client.connection.bind('error', (error) => inbox.push('error', error));
  return inbox;
}

export async function connected(client) {
  if (client.connection.state === 'connected') return client;
  await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not connected but ${client.connection.state}`)), 10_000);
    client.connection.bind('connected', () => { clearTimeout(timer); resolve(); });
  });
  return client;
}

// Notes everything a channel tells: events under their names.
export function channelInbox(channel) {
  const inbox = new Inbox();
  channel.bind_global((name, value) => inbox.push(name, value));
  return inbox;
}

// Subscribes and returns when the server has answered.
export async function subscribed(client, name) {
  const channel = client.subscribe(name);
  const inbox = channelInbox(channel);
  const { name: first, value } = await inbox.next();
  if (first !== 'pusher:subscription_succeeded') throw new Error(`${name}: ${first} ${JSON.stringify(value)}`);
  return { channel, inbox, answer: value };
}

// Signs in and returns when the client can be reached as its user.
export async function signedIn(client) {
  await connected(client);
  client.signin();
  await client.user.signinDonePromise;
  if (!client.user.user_data) throw new Error('not signed in');
  await subscribed(client, `marker-${client.connection.socket_id}`);
}
