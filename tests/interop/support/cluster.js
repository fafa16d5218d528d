// What joins nodes: a Redis of the test's own, the way of one node to it, which can be cut, and a schema of the Postgres that tests/run has
// started, or of one that HERALD_TEST_POSTGRES_URL names.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';

const POSTGRES = process.env.HERALD_TEST_POSTGRES_URL;

export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function reachable(port, deadline = Date.now() + 10_000) {
  for (;;) {
    const is = await new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
      socket.on('error', () => resolve(false));
    });
    if (is) return;
    if (Date.now() > deadline) throw new Error(`nothing listens on ${port}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// The port of an empty Redis that ends with the test.
export async function redis(t) {
  const port = await freePort();
  const folder = await mkdtemp(path.join(tmpdir(), 'redis-'));
  const server = spawn('redis-server', ['--bind', '127.0.0.1', '--port', port, '--save', '', '--appendonly', 'no', '--dir', folder], { stdio: 'ignore' });
  t.after(async () => { server.kill('SIGKILL'); await rm(folder, { recursive: true, force: true }); });
  await reachable(port);
  return port;
}

// A way to a port: what `cut` closes, `heal` opens.
export async function way(t, to) {
  const open = new Set();
  let isCut = false;
  const server = createServer((socket) => {
    if (isCut) return socket.destroy();
    const other = connect(to, '127.0.0.1');
    for (const [one, two] of [[socket, other], [other, socket]]) {
      open.add(one);
      one.on('error', () => {}).on('close', () => { open.delete(one); two.destroy(); }).pipe(two);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => { server.close(); open.forEach((socket) => socket.destroy()); });
  return {
    port: server.address().port,
    cut() { isCut = true; open.forEach((socket) => socket.destroy()); },
    heal() { isCut = false; },
  };
}

// The section of the configuration that names a database of the test's own.
export function database() {
  if (!POSTGRES) throw new Error('HERALD_TEST_POSTGRES_URL must name a Postgres, as tests/run does');
  return `[database]\nurl = ${JSON.stringify(POSTGRES)}\nschema = "t_${randomBytes(8).toString('hex')}"\n`;
}
