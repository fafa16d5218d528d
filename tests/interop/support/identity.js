// A Clerk instance of a test's own: its key, and session tokens as Clerk signs them.
import { createSign, generateKeyPairSync } from 'node:crypto';

export const PARTY = 'http://localhost:3000';

const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
export const PEM = publicKey.export({ type: 'spki', format: 'pem' });

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

// A token of `user`, valid for a minute; `claims` replace or add to what such a token says.
export function sessionToken(user, claims = {}) {
  const now = Math.floor(Date.now() / 1000);
  const header = { alg: 'RS256', typ: 'JWT', kid: 'ins_test', cat: 'cl_B7d4PD111AAA' };
  const payload = { v: 2, sub: user, sid: `sess_${user}`, iss: 'https://clerk.example.com', azp: PARTY, iat: now, nbf: now - 10, exp: now + 60, sts: 'active', ...claims };
  const signed = `${encoded(header)}.${encoded(payload)}`;
  return `${signed}.${createSign('RSA-SHA256').update(signed).sign(privateKey).toString('base64url')}`;
}

// Options of a Herald that knows this instance.
export const auth = (more = '') => `[auth]\njwt_key = '''${PEM}'''\nauthorized_parties = ["${PARTY}"]\n${more}\n`;

// How a page authorizes with Clerk: the snippet of docs/clerk.md, with `getToken` as Clerk's SDK has it.
export function handlers(url, getToken) {
  const handler = (path) => async ({ socketId, channelName }, callback) => {
    try {
      const response = await fetch(url + path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/x-www-form-urlencoded', Authorization: `Bearer ${await getToken()}` },
        body: new URLSearchParams({ socket_id: socketId, ...(channelName ? { channel_name: channelName } : {}) }),
      });
      if (!response.ok) throw Object.assign(new Error(`auth ${response.status}`), { status: response.status });
      callback(null, await response.json());
    } catch (error) {
      callback(error, null);
    }
  };
  return {
    channelAuthorization: { customHandler: handler('/pusher/auth') },
    userAuthentication: { customHandler: handler('/pusher/user-auth') },
  };
}
