// Cloudinary by its own library: what Herald sends and signs is checked by the code that Cloudinary's customers check with, and what that signs is
// taken.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { v2 as cloudinary } from 'cloudinary';
import { pusherJs, subscribed } from './support/clients.js';
import { Herald } from './support/herald.js';
import { auth, handlers, sessionToken } from './support/identity.js';
import { Inbox } from './support/inbox.js';

const SECRET = 'TESTSECRET_abcdEFGH-1234_xyz';
const KEY = '123456789012345';
const FIXED = ['file', 'cloud_name', 'resource_type', 'api_key', 'signature'];

cloudinary.config({ cloud_name: 'demo', api_key: KEY, api_secret: SECRET });

const seconds = () => Math.floor(Date.now() / 1000);

// Cloudinary's API: takes what is signed as its library signs it, and answers as it does.
class Api {
  destroyed = new Inbox();
  uploads = [];

  async start() {
    this.server = createServer((request, response) => this.#serve(request, response).catch((error) => response.writeHead(500).end(String(error))));
    await new Promise((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  stop() {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(resolve));
  }

  async #serve(request, response) {
    const json = (status, body) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const form = await new Response(Buffer.concat(chunks), { headers: { 'content-type': request.headers['content-type'] } }).formData();
    const [, , cloud, resourceType, action] = request.url.split('/');
    const signed = Object.fromEntries([...form].filter(([name]) => !FIXED.includes(name)));
    const right = cloudinary.utils.api_sign_request(signed, SECRET);
    if (cloud !== 'demo' || form.get('api_key') !== KEY || form.get('signature') !== right) {
      return json(401, { error: { message: 'Invalid Signature' } });
    }
    if (Math.abs(seconds() - Number(signed.timestamp)) > 3600) return json(400, { error: { message: 'Stale request' } });
    if (action === 'destroy') {
      this.destroyed.push(signed.public_id, { ...signed, resourceType });
      return json(200, { result: 'ok' });
    }
    const file = form.get('file');
    const ending = file.name.split('.').at(-1);
    if (signed.allowed_formats && !signed.allowed_formats.split(',').includes(ending)) return json(400, { error: { message: `${ending} is not allowed` } });
    const publicId = [signed.folder, signed.public_id].filter(Boolean).join('/');
    const version = 1767225600 + this.uploads.length;
    this.uploads.push({ signed, bytes: file.size });
    return json(200, {
      asset_id: `asset-${this.uploads.length}`, public_id: publicId, version, format: ending, resource_type: 'image', type: 'upload', bytes: file.size,
      original_filename: (signed.filename_override ?? file.name).split('.')[0], tags: signed.tags?.split(',') ?? [],
      url: `http://res.cloudinary.com/demo/image/upload/v${version}/${publicId}.${ending}`,
      secure_url: `https://res.cloudinary.com/demo/image/upload/v${version}/${publicId}.${ending}`,
      context: { custom: Object.fromEntries([(signed.context ?? '').split('=')].filter((pair) => pair.length === 2)) },
      signature: cloudinary.utils.api_sign_request({ public_id: publicId, version }, SECRET, 'sha1', 1),
    });
  }
}

describe('Cloudinary', () => {
  let api, herald;
  before(async () => {
    api = await new Api().start();
    const more = `${auth()}[integrations.cloudinary]\nurl = "cloudinary://${KEY}:${SECRET}@demo"\napi_url = "${api.url}"\nmax_file_bytes = 1000\n`;
    herald = await Herald.start(null, { more });
  });
  after(async () => { await herald?.stop(); await api?.stop(); });

  const ask = async (user, method, path, body) => {
    const headers = { Authorization: `Bearer ${sessionToken(user)}`, 'Content-Type': 'application/json' };
    const response = await fetch(herald.url + path, { method, headers, body: body && JSON.stringify(body) });
    return { status: response.status, body: response.status === 204 ? null : await response.json() };
  };
  // The snippet of docs/files.md.
  const upload = async (file, { params, api_key, signature, upload_url }) => {
    const form = new FormData();
    for (const [name, value] of Object.entries({ ...params, api_key, signature })) form.append(name, value);
    form.append('file', file);
    const response = await fetch(upload_url, { method: 'POST', body: form });
    return { status: response.status, body: await response.json() };
  };
  const notify = async (body, secret = SECRET, algorithm = 'sha1') => {
    const text = JSON.stringify(body);
    const timestamp = seconds();
    cloudinary.config({ api_secret: secret, signature_algorithm: algorithm });
    try {
      const signature = cloudinary.utils.webhook_signature(text, timestamp, { api_secret: secret, signature_algorithm: algorithm });
      assert.ok(cloudinary.utils.verifyNotificationSignature(text, timestamp, signature), "the library's own word");
      const headers = { 'X-Cld-Signature': signature, 'X-Cld-Timestamp': String(timestamp), 'Content-Type': 'application/json' };
      return (await fetch(`${herald.url}/webhooks/cloudinary`, { method: 'POST', headers, body: text })).status;
    } finally {
      cloudinary.config({ api_secret: SECRET, signature_algorithm: 'sha1' });
    }
  };

  test('a browser uploads with what Herald answers, reports it, and the page is told', async (t) => {
    const client = pusherJs(t, herald, undefined, handlers(herald.url, async () => sessionToken('user_ann')));
    const { inbox } = await subscribed(client, 'private-user-user_ann');
    const { body: signed } = await ask('user_ann', 'POST', '/v1/files/signature', { filename: 'Zoë 100% + a.jpg', tags: ['a', 'b'] });
    const answer = await upload(new File(['x'.repeat(10)], 'photo.jpg'), signed);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    assert.ok(answer.body.public_id.startsWith('users/user_ann/'));
    assert.ok(cloudinary.utils.verify_api_response_signature(answer.body.public_id, answer.body.version, answer.body.signature));
    const { body: { file } } = await ask('user_ann', 'POST', '/v1/files', answer.body);
    assert.deepEqual([file.service_file_id, file.file_url, file.file_type, file.file_size], [answer.body.public_id, answer.body.secure_url, 'image/jpeg', 10]);
    assert.equal((await inbox.until('file.created')).file.id, file.id);
    assert.equal(await notify({ notification_type: 'upload', ...answer.body }), 200);
    assert.equal((await inbox.until('file.updated')).file.id, file.id);
    const { body: { items } } = await ask('user_ann', 'GET', '/v1/files');
    assert.deepEqual(items.map(({ id }) => id), [file.id]);

    assert.equal((await ask('user_ann', 'DELETE', `/v1/files/${file.id}`)).status, 204);
    assert.equal((await inbox.until('file.deleted')).file.id, file.id);
    const destroyed = await api.destroyed.until(answer.body.public_id);
    assert.deepEqual([destroyed.resourceType, destroyed.invalidate], ['image', 'true']);
  });

  test('one signature is for what was signed, and for nothing else', async () => {
    const { body: signed } = await ask('user_ann', 'POST', '/v1/files/signature', {});
    const file = new File(['x'], 'photo.jpg');
    for (const params of [{ ...signed.params, folder: 'users/user_bob' }, { ...signed.params, tags: 'more' }, { ...signed.params, context: 'user_id=user_bob' }]) {
      assert.equal((await upload(file, { ...signed, params })).status, 401);
    }
    assert.equal((await upload(new File(['x'], 'virus.exe'), signed)).status, 400);
  });

  test("what the upload widget wants to have signed is signed as its library does it", async () => {
    const paramsToSign = { timestamp: seconds(), source: 'uw', folder: 'users/user_ann', upload_preset: 'user_uploads', custom_coordinates: '1,2,3,4' };
    const { status, body } = await ask('user_ann', 'POST', '/api/cloudinary/signature', { paramsToSign });
    assert.equal(status, 200);
    assert.equal(body.signature, cloudinary.utils.api_sign_request(paramsToSign, SECRET));
    assert.equal((await upload(new File(['x'], 'a.jpg'), { ...body, params: paramsToSign })).status, 200);
    const other = await ask('user_ann', 'POST', '/v1/files/signature', { paramsToSign: { ...paramsToSign, folder: 'users/user_bob' } });
    assert.deepEqual([other.status, other.body.error.message.includes('`folder`')], [400, true]);
  });

  test('what the library signs as a notification is taken, by either digest, and nothing else', async () => {
    const body = { notification_type: 'resource_tags_changed', resources: [] };
    assert.equal(await notify(body), 200);
    assert.equal(await notify({ ...body, more: 'ü' }, SECRET, 'sha256'), 200);
    assert.equal(await notify(body, 'another secret'), 401);
  });

  test('a file that is too large is deleted once Cloudinary has told of it', async () => {
    const { body: signed } = await ask('user_bob', 'POST', '/v1/files/signature', {});
    const answer = await upload(new File(['x'.repeat(1001)], 'big.jpg'), signed);
    assert.equal(await notify({ notification_type: 'upload', ...answer.body }), 200);
    assert.equal((await api.destroyed.until(answer.body.public_id)).type, 'upload');
    const { body: { items: [file] } } = await ask('user_bob', 'GET', '/v1/files');
    assert.deepEqual([file.status, file.file_size], ['rejected', 1001]);
  });
});
