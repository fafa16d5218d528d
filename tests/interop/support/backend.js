// The application's backend: authorizes channels and users and receives webhooks, all with the official `pusher` library.
import http from 'node:http';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import PusherServer from 'pusher';
import { APP } from './herald.js';
import { Inbox } from './inbox.js';

const MASTER_KEY = Buffer.alloc(32, 7).toString('base64');
const WEB_CLIENT = fileURLToPath(new URL('../node_modules/pusher-js/dist/web/pusher-with-encryption.min.js', import.meta.url));
const PAGE = '<!doctype html><meta charset="utf-8"><title>page</title><link rel="icon" href="data:,"><script src="/pusher.js"></script>';

export class Backend {
  webhooks = new Inbox(); // each event of a verified webhook under its name
  requests = []; // each webhook request: { valid, body, headers }
  watchlists = {}; // user id → user ids
  answer = () => 200; // to a webhook

  static async start(t) {
    const backend = new Backend();
    backend.server = http.createServer((request, response) => backend.#serve(request, response).catch((error) => response.writeHead(500).end(String(error))));
    await new Promise((resolve) => backend.server.listen(0, '127.0.0.1', resolve));
    backend.url = `http://127.0.0.1:${backend.server.address().port}`;
    t?.after(() => backend.stop());
    return backend;
  }

  // The library as the backend uses it against this server.
  connect(herald, options = {}) {
    this.pusher = pusherFor(herald, options);
    return this.pusher;
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }

  async #serve(request, response) {
    const json = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const text = await read(request);
    const user = request.headers['x-user'];
    switch (`${request.method} ${request.url}`) {
      case 'GET /': return response.writeHead(200, { 'content-type': 'text/html' }).end(PAGE);
      case 'GET /pusher.js': return response.writeHead(200, { 'content-type': 'text/javascript' }).end(await readFile(WEB_CLIENT));
      case 'POST /pusher/auth': {
        const form = new URLSearchParams(text);
        const channel = form.get('channel_name');
        if (channel.includes('forbidden')) return json(403, { error: 'forbidden' });
        if (channel.includes('forged')) return json(200, { auth: `${APP.key}:${'0'.repeat(64)}` });
        const member = channel.startsWith('presence-') && user ? { user_id: user, user_info: { name: user.toUpperCase() } } : undefined;
        return json(200, this.pusher.authorizeChannel(form.get('socket_id'), channel, member));
      }
      case 'POST /pusher/user-auth': {
        const data = { id: user, user_info: { name: user.toUpperCase() }, watchlist: this.watchlists[user] ?? [] };
        return json(200, this.pusher.authenticateUser(new URLSearchParams(text).get('socket_id'), data));
      }
      case 'POST /webhooks': {
        const webhook = this.pusher.webhook({ headers: request.headers, rawBody: text });
        const valid = webhook.isValid();
        const status = this.answer(this.requests.length);
        this.requests.push({ valid, body: text, headers: request.headers, status });
        if (status === 200 && valid) for (const event of webhook.getEvents()) this.webhooks.push(event.name, event);
        return response.writeHead(status).end();
      }
      default: return json(404, { error: 'no such page' });
    }
  }
}

export function pusherFor(herald, options = {}) {
  return new PusherServer({
    appId: APP.id, key: APP.key, secret: APP.secret, host: '127.0.0.1', port: herald.port, useTLS: false,
    encryptionMasterKeyBase64: MASTER_KEY, ...options,
  });
}

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}
