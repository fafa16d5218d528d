// The example app: it is installed, typechecked and built as its README says, and runs. What needs Clerk's servers is not reached from here.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePort } from './support/cluster.js';

const APP = fileURLToPath(new URL('../../examples/nextjs', import.meta.url));
const ENVIRONMENT = {
  ...process.env,
  NEXT_TELEMETRY_DISABLED: '1',
  NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY: 'pk_test_Y2xlcmsuZXhhbXBsZS5jb20k', // clerk.example.com, which does not exist
  CLERK_SECRET_KEY: 'sk_test_of_nobody',
};

function run(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: APP, env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => { output += chunk; });
    child.stderr.on('data', (chunk) => { output += chunk; });
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve(output) : reject(new Error(`${command} ${args.join(' ')} ended with ${code}:\n${output}`))));
  });
}

async function install() {
  const lock = await readFile(path.join(APP, 'package-lock.json'), 'utf8');
  const mark = path.join(APP, 'node_modules', '.installed-from');
  if (await readFile(mark, 'utf8').catch(() => null) === lock) return;
  await run('npm', ['ci', '--no-audit', '--no-fund']);
  await writeFile(mark, lock);
}

test('the example for Next.js is typechecked, built, and lets nobody in who is not signed in', { timeout: 600_000 }, async (t) => {
  await install();
  await run('npx', ['tsc', '--noEmit']);
  await run('npx', ['next', 'build']);
  const port = await freePort();
  const next = path.join(APP, 'node_modules', 'next', 'dist', 'bin', 'next');
  const server = spawn(process.execPath, [next, 'start', '--hostname', 'localhost', '--port', String(port)], { cwd: APP, env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => server.kill('SIGKILL'));
  await new Promise((resolve) => server.stdout.on('data', (chunk) => String(chunk).includes('Ready') && resolve()));
  const page = await fetch(`http://localhost:${port}/`);
  assert.equal(page.status, 200);
  assert.match(await page.text(), /Herald and Next\.js/);
  const refused = await fetch(`http://localhost:${port}/notify`, { method: 'POST' });
  assert.equal(refused.status, 401);
});
