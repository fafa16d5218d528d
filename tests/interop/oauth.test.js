// OAuth 2.0 by a library that services are built with: it checks who refreshes, hands out a new refresh token each time, and takes each once. Clerk by its own
// library: what Herald is answered is what that reads.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { createClerkClient } from '@clerk/backend';
import OAuth2Server from '@node-oauth/oauth2-server';
import Pusher from 'pusher';
import { APP, Herald } from './support/herald.js';
import { auth } from './support/identity.js';

const CLIENT = { id: 'herald-client', secret: 'client-secret-0123', grants: ['refresh_token'], accessTokenLifetime: 3600, refreshTokenLifetime: 86400 };
const CLERK_KEY = 'sk_test_hush';
const PROVIDER = {
  object: 'oauth_access_token', external_account_id: 'eac_1', provider_user_id: '42', token: 'access-of-clerk', expires_at: 1990000000, provider: 'oauth_github',
  public_metadata: {}, label: null, scopes: ['repo'],
};

async function listen(server) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

// A service's token endpoint: the library's own, over tokens in memory.
class TokenServer {
  tokens = new Map();
  failures = [];
  refreshed = 0;

  async start() {
    const { tokens } = this;
    const oauth = new OAuth2Server({
      model: {
        getClient: async (id, secret) => (id === CLIENT.id && secret === CLIENT.secret ? CLIENT : null),
        getRefreshToken: async (refreshToken) => tokens.get(refreshToken),
        revokeToken: async ({ refreshToken }) => tokens.delete(refreshToken),
        saveToken: async (token, client, user) => {
          this.refreshed += 1;
          const saved = { ...token, client, user };
          tokens.set(token.refreshToken, saved);
          return saved;
        },
      },
    });
    this.server = createServer(async (request, response) => {
      const form = Object.fromEntries(new URLSearchParams(await body(request)));
      const answer = new OAuth2Server.Response();
      const asked = new OAuth2Server.Request({ method: request.method, query: {}, headers: request.headers, body: form });
      try {
        await oauth.token(asked, answer);
      } catch (error) {
        this.failures.push(error.name);
      }
      response.writeHead(answer.status, { ...answer.headers, 'content-type': 'application/json' }).end(JSON.stringify(answer.body));
    });
    this.url = await listen(this.server);
    return this;
  }

  // A user connects the service.
  connect(refreshToken) {
    this.tokens.set(refreshToken, { refreshToken, refreshTokenExpiresAt: new Date(Date.now() + 86_400_000), scope: ['mail'], client: CLIENT, user: { id: 1 } });
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }
}

// Clerk's Backend API, as far as its library asks for it.
async function clerkApi() {
  const metadata = [];
  const server = createServer(async (request, response) => {
    const json = (status, value) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    if (request.headers.authorization !== `Bearer ${CLERK_KEY}`) return json(401, { errors: [{ code: 'clerk_key_invalid', message: 'no' }] });
    const url = new URL(request.url, 'http://clerk');
    const path = decodeURIComponent(url.pathname);
    const said = await body(request);
    if (request.method === 'GET' && path === '/v1/users/user_ann/oauth_access_tokens/oauth_github') {
      return json(200, url.searchParams.get('paginated') === 'true' ? { data: [PROVIDER], total_count: 1 } : [PROVIDER]);
    }
    if (request.method === 'PATCH' && path === '/v1/users/user_ann/metadata') {
      metadata.push({ headers: request.headers, body: JSON.parse(said) });
      return json(200, { id: 'user_ann', public_metadata: JSON.parse(said).public_metadata });
    }
    return json(404, { errors: [{ code: 'resource_not_found', message: 'no' }] });
  });
  return { server, metadata, url: await listen(server) };
}

describe('tokens of other services', () => {
  let tokens, clerk, herald, pusher;
  before(async () => {
    tokens = await new TokenServer().start();
    clerk = await clerkApi();
    const more = `${auth(`secret_key = "${CLERK_KEY}"\napi_url = "${clerk.url}"`)}
[tokens]
keys = "k1:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk="
[integrations.oauth.google]
token_url = "${tokens.url}/token"
client_id = "${CLIENT.id}"
client_secret = "${CLIENT.secret}"
`;
    herald = await Herald.start(null, { more });
    pusher = new Pusher({ appId: APP.id, key: APP.key, secret: APP.secret, cluster: 'x' });
  });
  after(async () => {
    await herald?.stop();
    await tokens?.stop();
    clerk?.server.closeAllConnections();
    clerk?.server.close();
  });

  // A server's request, signed by Pusher's own library: no further secret is needed.
  const ask = async (method, service, said) => {
    const path = `/v1/users/user_ann/integrations/${service}`;
    const body = said && JSON.stringify(said);
    const response = await fetch(`${herald.url}${path}?${pusher.createSignedQueryString({ method, path, body })}`, { method, body });
    return { status: response.status, body: await response.json() };
  };
  const expired = () => new Date(Date.now() - 1000).toISOString();

  test('are refreshed as the library wants it, again and again', async () => {
    tokens.connect('refresh-one');
    await ask('PUT', 'google', { access_token: 'access-one', refresh_token: 'refresh-one', token_expires_at: expired() });
    const given = new Set();
    for (let round = 1; round <= 3; round += 1) {
      const { status, body: { access_token, expires_at } } = await ask('POST', 'google/token');
      assert.equal(status, 200);
      assert.ok(Date.parse(expires_at) > Date.now() + 3_500_000);
      given.add(access_token);
      assert.equal(tokens.refreshed, round);
      await ask('PUT', 'google', { token_expires_at: expired() });
    }
    assert.equal(given.size, 3);
    assert.deepEqual(tokens.failures, []);
  });

  test('that the user has taken back have to be connected again', async () => {
    await ask('POST', 'google/token');
    tokens.tokens.clear();
    await ask('PUT', 'google', { token_expires_at: expired() });
    const { status, body: { error } } = await ask('POST', 'google/token');
    assert.deepEqual([status, error.code], [409, 'reauth_required']);
    assert.deepEqual(tokens.failures, ['invalid_grant']);
    tokens.connect('refresh-two');
    const { body: { integration } } = await ask('PUT', 'google', { refresh_token: 'refresh-two', token_expires_at: expired() });
    assert.equal(integration.is_active, true);
    assert.equal((await ask('POST', 'google/token')).status, 200);
  });

  test("that Clerk holds are what Clerk's own library gets", async () => {
    const theirs = createClerkClient({ secretKey: CLERK_KEY, apiUrl: clerk.url });
    const { data: [token] } = await theirs.users.getUserOauthAccessToken('user_ann', 'github');
    const { status, body: ours } = await ask('POST', 'github/token');
    assert.deepEqual([status, ours.access_token], [200, token.token]);
    assert.equal(Date.parse(ours.expires_at), token.expiresAt * 1000);
    assert.equal((await ask('POST', 'gitlab/token')).status, 404);
  });

  test("go with data that is written into Clerk's metadata as its library writes it", async () => {
    await ask('PUT', 'google', { service_data: { plan: 'pro' }, sync_metadata: true });
    const deadline = Date.now() + 10_000;
    while (clerk.metadata.length === 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50));
    const theirs = createClerkClient({ secretKey: CLERK_KEY, apiUrl: clerk.url });
    await theirs.users.updateUserMetadata('user_ann', { publicMetadata: { google: { plan: 'pro' } } });
    const [ours, library] = clerk.metadata;
    assert.deepEqual(ours.body, library.body);
    for (const name of ['authorization', 'clerk-api-version']) assert.equal(ours.headers[name], library.headers[name], name);
  });
});
