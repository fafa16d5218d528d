// Runs the real binary on a free port, with a configuration of its own, and ends it with the test.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const BINARY = process.env.HERALD_BINARY ?? path.join(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'debug', 'herald');
const START_DEADLINE = 10_000;
const STOP_DEADLINE = 10_000;

export const APP = { id: 'app-id', key: 'app-key', secret: 'app-secret' };

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

// The environment of a test machine must not configure the server: only what a test sets counts.
function cleanEnvironment(extra) {
  const inherited = Object.entries(process.env).filter(([name]) => !/^(HERALD|PUSHER|SOKETI|REVERB)_/.test(name));
  return { ...Object.fromEntries(inherited), ...extra };
}

function configuration({ port, app, webhooks, more, data }) {
  const toml = (value) => value?.constructor === Object ? `{ ${pairs(value).join(', ')} }` : JSON.stringify(value);
  const pairs = (object) => Object.entries(object).map(([name, value]) => `${JSON.stringify(name)} = ${toml(value)}`);
  return [
    '[server]', `listen = "127.0.0.1:${port}"`, `data_dir = ${JSON.stringify(data)}`,
    '[metrics]', 'listen = "127.0.0.1:0"',
    '[shutdown]', 'delay = "0s"', 'drain = "1s"',
    more,
    '[[apps]]', ...pairs({ ...APP, ...app }),
    ...webhooks.flatMap((webhook) => ['[[apps.webhooks]]', ...pairs(webhook)]),
    '',
  ].join('\n');
}

export class Herald {
  #child;
  #directory;
  log = '';
  exit; // resolves to { code, signal }

  // `app`: options of the app; `webhooks`: its webhooks; `more`: sections of the configuration as text.
  // Without a test `t` the caller stops it.
  static async start(t, { port = 0, app = {}, webhooks = [], more = '' } = {}) {
    const herald = new Herald();
    t?.after(() => herald.stop());
    herald.#directory = await mkdtemp(path.join(tmpdir(), 'herald-'));
    const file = path.join(herald.#directory, 'herald.toml');
    await writeFile(file, configuration({ port, app, webhooks, more, data: path.join(herald.#directory, 'data') }));
    await herald.#run({ HERALD_CONFIG: file });
    return herald;
  }

  // Starts with nothing but `environment`, as a newcomer or a container would.
  static async startFromEnvironment(t, environment) {
    const herald = new Herald();
    t.after(() => herald.stop());
    herald.#directory = await mkdtemp(path.join(tmpdir(), 'herald-'));
    await herald.#run({ HERALD_DATA_DIR: path.join(herald.#directory, 'data'), ...environment });
    return herald;
  }

  get port() { return Number(new URL(this.url).port); }

  async #run(environment) {
    const child = spawn(BINARY, [], { cwd: this.#directory, env: cleanEnvironment(environment), stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    running.add(child);
    this.exit = new Promise((resolve) => child.on('exit', (code, signal) => { running.delete(child); resolve({ code, signal }); }));
    child.on('error', (error) => { this.log += `${error}\n`; });
    await new Promise((resolve, reject) => {
      const fail = (why) => reject(new Error(`herald ${why}; it said:\n${this.log}`));
      const timer = setTimeout(() => fail('did not say where it listens'), START_DEADLINE);
      const read = (chunk) => {
        this.log += chunk;
        this.url = /^listening on (http:\S+)/m.exec(this.log)?.[1];
        this.metrics = /^metrics on (http:\S+)/m.exec(this.log)?.[1];
        if (this.url && (this.metrics || environment.HERALD_METRICS_LISTEN === 'off')) { clearTimeout(timer); resolve(); }
      };
      child.stdout.setEncoding('utf8').on('data', read);
      child.stderr.setEncoding('utf8').on('data', read);
      child.on('error', () => { clearTimeout(timer); fail('could not be started'); });
      child.on('exit', (code) => { clearTimeout(timer); fail(`ended with ${code}`); });
    });
  }

  // Ends the server as an operator would; answers how it ended.
  async stop(signal = 'SIGTERM') {
    if (!this.#child || this.#child.pid === undefined) return null;
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_DEADLINE);
    const ended = await this.exit;
    clearTimeout(timer);
    await rm(this.#directory, { recursive: true, force: true });
    return ended;
  }
}

// Runs the binary to its end; for starts that must fail and for the short commands.
export function runToEnd(args, environment = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(BINARY, args, { cwd: tmpdir(), env: cleanEnvironment(environment), stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(child);
    const timer = setTimeout(() => child.kill('SIGKILL'), START_DEADLINE);
    let output = '';
    child.stdout.on('data', (chunk) => { output += chunk; });
    child.stderr.on('data', (chunk) => { output += chunk; });
    child.on('error', reject);
    child.on('close', (code) => { clearTimeout(timer); running.delete(child); resolve({ code, output }); });
  });
}
