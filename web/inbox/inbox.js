/**
 * The bell: a user's notifications, as Herald keeps them, on every page. Each of these is of use without the next: `InboxState` is the
 * client rule (pure: events and answers in, lists and counts out), `HeraldInbox` keeps one true over HTTP and a socket, `<herald-inbox>`
 * shows it. No dependencies, no build: this file is what is served. What each method promises stands in `inbox.d.ts`.
 */

// --- The client rule ---

/** What an action or a bulk event changes in a notification; `null`: it is gone. */
const EFFECTS = {
  seen: (n, at) => ({ seen_at: n.seen_at ?? at }),
  read: (n, at) => ({ seen_at: n.seen_at ?? at, read_at: n.read_at ?? at }),
  unread: () => ({ read_at: null }),
  archive: (n, at) => ({ archived_at: n.archived_at ?? at }),
  unarchive: () => ({ archived_at: null }),
  snooze: (n, at, until) => ({ snoozed_until: until, visible_at: until }),
  unsnooze: (n, at) => ({ snoozed_until: null, visible_at: at, read_at: null }),
  delete: () => null,
};

/** The members of a filter. A snooze ends by its event, not by this machine's clock. */
const TESTS = {
  status: (n, status) => status === 'all' || (status === 'read' ? n.read_at : !n[status === 'unread' ? 'read_at' : 'seen_at']),
  archived: (n, archived) => archived === 'include' || !n.archived_at === (archived === 'exclude'),
  snoozed: (n, snoozed) => !n.snoozed_until === (snoozed === 'exclude'),
  type: (n, types) => [types].flat().some((type) => type === n.type || (type.endsWith('.*') && n.type.startsWith(type.slice(0, -1)))),
  severity: (n, severity) => n.severity === severity,
  org_id: (n, org) => n.org_id === org,
  created_after: (n, time) => Date.parse(n.created_at) > Date.parse(time),
};

/** Whether the server lists `n` under `filter`. */
export const matches = (n, filter) => Object.entries({ archived: 'exclude', snoozed: 'exclude', ...filter }).every(([member, value]) => TESTS[member](n, value));

/** What lists are sorted by, the newest having the greatest. */
const key = (n) => `${n.visible_at.replace('Z', '')} ${n.id}`;

/**
 * What is known of an inbox, complete up to revision `rev`. An event with the next revision is applied, one with a lower is a duplicate,
 * one with a higher shows a gap, which `changes` since `rev` closes. No item goes back to an older revision of itself, so answers may
 * come late and in any order.
 */
export class InboxState {
  rev = -1; // before the first page
  counts = { unread: 0, unseen: 0 };
  reset = false; // the server's revisions begin anew: this state is of no use any more
  fresh = []; // notifications that came by themselves; whoever announces them takes them out
  #heard = -1; // the highest revision that anything spoke of
  #doubt = false;
  #counted = -1; // the revision of `counts`
  #items = new Map(); // deleted ones stay, as { gone }: a late answer must not bring them back
  #views = new Map();

  /** Whether `changes` are to be asked for. */
  get behind() { return this.rev >= 0 && (this.#doubt || this.#heard > this.rev); }

  /** Something may have been missed. */
  doubt() { this.#doubt = true; }

  /** The list under a filter. It is held down to the sort key `horizon`; there `cursor` goes on. */
  view(filter = {}) {
    const name = JSON.stringify(filter);
    if (!this.#views.has(name)) this.#views.set(name, { filter });
    return this.#views.get(name);
  }

  /** An event of the user's channel. Returns the id of a notification that came cut and has to be fetched. */
  event(name, event) {
    if (name === 'inbox.reset') this.reset = true;
    const rev = event?.rev;
    if (rev === undefined) return;
    this.#hear(event);
    // A state below ours was overtaken by events, or the database went back: the answer to `changes` tells.
    if (name === 'inbox.state') this.#doubt ||= rev < this.rev;
    else if (rev === this.rev + 1 && this.#apply(name, event)) {
      this.rev = rev;
      if (event.truncated) return event.notification?.id;
    }
  }

  /** A page of a view. One older than what is held makes that complete only up to there; the difference is asked for. */
  page(view, answer) {
    this.#heard = Math.max(this.#heard, this.rev);
    this.rev = this.rev < 0 ? answer.rev : Math.min(this.rev, answer.rev);
    for (const n of answer.items) this.#put({ ...n, rev: n.rev ?? answer.rev });
    view.cursor = answer.next_cursor;
    view.horizon = view.cursor ? key(answer.items.at(-1)) : '';
    this.#hear(answer);
  }

  /** An answer to `changes`. The last one, without `next`, completes all that was complete up to `since`. */
  changes(since, answer) {
    if (answer.reset) this.reset = true;
    for (const { rev, deleted, notification } of answer.changes) {
      if (deleted) this.#bury(deleted, rev);
      else this.#put({ ...notification, rev }, true);
    }
    if (answer.next || this.rev < since) return;
    this.#hear(answer);
    this.rev = Math.max(this.rev, answer.rev);
    this.#doubt = false;
  }

  /** An answer about one notification, or to an action. Its revision may have changed others too: only events and changes complete one. */
  answer(answer) {
    const n = answer.notification;
    if (n) this.#put(n);
    this.#hear(answer);
  }

  /** The server knows it no more. */
  gone(id) { this.#bury(id, Infinity); }

  held() { return [...this.#items.values()].filter((n) => !n.gone); }

  /** A view's list, newest first, once `change` is done to each. */
  list(view, change = (n) => n) {
    return this.held().map(change).filter((n) => n && matches(n, view.filter) && key(n) >= view.horizon).sort((a, b) => (key(a) < key(b) ? 1 : -1));
  }

  #hear({ rev, counts }) {
    this.#heard = Math.max(this.#heard, rev);
    if (!counts || rev < this.#counted) return;
    this.counts = counts;
    this.#counted = rev;
  }

  /** False if this cannot be done to what is held: then it is a gap too. */
  #apply(name, event) {
    const verb = name.replace(/.*\.(all_)?/, '').replace(/(ive|ete)d$/, '$1');
    const { notification, ids = notification && [notification.id], up_to_rev: upTo, filter, rev } = event;
    if (notification && verb !== 'delete') this.#put({ ...notification, rev }, true);
    else if (!EFFECTS[verb]) return false;
    else if (ids) {
      if (verb !== 'delete' && !ids.every((id) => this.#items.has(id))) return false;
      for (const id of ids) this.#change(id, verb, event);
    } else {
      if (Object.keys(filter).some((member) => !TESTS[member])) return false;
      for (const n of this.held()) if (n.rev <= upTo && matches(n, filter)) this.#change(n.id, verb, event);
      // What is not held may have moved into these views, in the middle of what they show.
      for (const view of this.#views.values()) {
        if (verb === 'archive' ? view.filter.archived : view.filter.status === 'read') view.horizon = undefined;
      }
    }
    return true;
  }

  #change(id, verb, { at, rev }) {
    const n = this.#items.get(id);
    if (verb === 'delete') return this.#bury(id, rev);
    const changed = EFFECTS[verb](n, at);
    if (n.rev < rev && !n.gone && Object.keys(changed).some((member) => n[member] !== changed[member])) this.#items.set(id, { ...n, ...changed, rev });
  }

  #put(n, live) {
    const held = this.#items.get(n.id);
    if (held?.rev > n.rev) return;
    const isNew = (one) => one && !one.seen_at && matches(one);
    if (live && isNew(n) && !(isNew(held) && held.group_count === n.group_count)) this.fresh.push(n);
    this.#items.set(n.id, n);
  }

  #bury(id, rev) { this.#items.set(id, { rev, gone: true }); }
}

// --- Connections ---

const failure = (status, code, message, retryAfter = 0) => Object.assign(new Error(message), { status, code, retryAfter });

/** Seconds to wait after so many failures. */
const patience = (failures, most = 30) => Math.min(most, 2 ** failures) * (0.5 + Math.random() / 2);

const parse = (text) => { try { return JSON.parse(text); } catch { return text; } };

/** The user's channel. An id that cannot stand there as it is stands there in base32, a long one as its hash. */
export async function channelOf(user) {
  const base32 = (bytes) => bytes.reduce((bits, byte) => bits + byte.toString(2).padStart(8, 0), '')
    .replace(/.{1,5}/g, (five) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(five.padEnd(5, 0), 2)]);
  const bytes = new TextEncoder().encode(user);
  let name = /^\w{1,100}$/.test(user) ? user : `=${base32([...bytes])}`;
  if (name.length > 100) name = `==${base32([...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))])}`;
  return `private-user-${name}`;
}

/** The channel on the page's own Pusher, whose connection and authorization are the page's business. It does not try again by itself. */
function follow(pusher, name, tell) {
  const already = pusher.channel(name);
  const channel = pusher.subscribe(name);
  const watch = ({ current }) => current !== 'connected' && tell('down');
  let failures = 0;
  let timer;
  const hear = (event, data) => {
    tell(event, data);
    if (event === 'pusher:subscription_error' && data.status !== 403) timer = setTimeout(() => pusher.subscribe(name), patience(failures++) * 1000);
    if (event === 'pusher:subscription_succeeded') failures = 0;
  };
  channel.bind_global(hear);
  pusher.connection.bind('state_change', watch);
  if (channel.subscribed) hear('pusher:subscription_succeeded');
  return {
    close() {
      clearTimeout(timer);
      channel.unbind_global(hear);
      pusher.connection.unbind('state_change', watch);
      if (!already) pusher.unsubscribe(name);
    },
  };
}

/** A socket of its own: as much of the Pusher protocol as one channel needs; it comes back as close codes say. */
class Socket {
  #failures = 0;

  constructor(address, channel, authorize, hear) {
    Object.assign(this, { address, channel, authorize, hear });
    this.nudge();
  }

  /** Opens, now, unless it is open. */
  nudge() {
    if (this.socket) return;
    this.close();
    const socket = this.socket = new WebSocket(this.address);
    const say = (event, data) => socket.send(JSON.stringify({ event, data }));
    const wait = (seconds, then) => { clearTimeout(this.timer); this.timer = setTimeout(then, seconds * 1000); };
    const lost = (code, retryAfter = 0) => {
      if (this.socket !== socket) return;
      this.close();
      if (code >= 4000 && code < 4100) return this.hear('stopped');
      this.hear('down');
      const isAtOnce = code >= 4200 && code < 4300 && !this.#failures;
      wait(isAtOnce ? 0 : Math.max(retryAfter, patience(this.#failures)), () => this.nudge());
      this.#failures += 1;
    };
    let silence = 30;
    wait(15, lost);
    socket.onclose = ({ code }) => lost(code);
    socket.onmessage = async (frame) => {
      const { event, channel, data: text } = parse(frame.data);
      const data = parse(text);
      if (event === 'pusher:connection_established') {
        silence = data.activity_timeout;
        try {
          const auth = await this.authorize(data.socket_id);
          if (this.socket === socket) say('pusher:subscribe', { channel: this.channel, ...auth });
        } catch (error) {
          lost(error.status === 403 ? 4009 : 0, error.retryAfter);
        }
      } else if (event === 'pusher:ping') say('pusher:pong', {});
      else if (channel === this.channel) {
        const name = event.replace('_internal', '');
        if (name === 'pusher:subscription_succeeded') this.#failures = 0;
        this.hear(name, data);
        if (name === 'pusher:subscription_error') lost();
      }
      if (this.socket === socket) wait(silence, () => { say('pusher:ping', {}); wait(30, lost); });
    };
  }

  close() {
    clearTimeout(this.timer);
    if (this.socket) this.socket.onmessage = this.socket.onclose = null;
    this.socket?.close();
    this.socket = null;
  }
}

// --- The client ---

const clerk = (how) => globalThis.Clerk?.session?.getToken(how);

/** Whose a token is. The server verifies it; here it names the channel. */
function subject(token) {
  const payload = atob(token.split('.')[1].replace(/-/g, '+').replace(/_/g, '/'));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(payload, (c) => c.charCodeAt(0)))).sub;
}

/** A user's inbox, from its making to `close`. */
export class HeraldInbox {
  #options;
  #filter;
  #state = new InboxState();
  #user;
  #status;
  #error = null;
  #link;
  #run; // the connection that counts: what earlier ones still say is dropped
  #isSyncing = false;
  #more; // the view of which a further page is under way
  #actions = new Set(); // shown, not yet in the state
  #sent = Promise.resolve();
  #listeners = new Set();
  #snapshot;
  #wake = () => {};
  #timer;
  #closed = new AbortController();

  constructor({ url, pusher, appKey, filter = {}, pageSize = 20, getToken = clerk, userId }) {
    pusher = pusher?.connector?.pusher ?? pusher; // Laravel Echo holds one
    url = (url ?? new URL('.', import.meta.url).href).replace(/\/$/, ''); // where this file came from, which is Herald
    this.#options = { url, pusher, appKey: appKey ?? pusher?.key, pageSize, getToken, userId };
    this.#filter = filter;
    const { signal } = this.#closed;
    const nudge = () => {
      if (globalThis.document?.hidden || this.#status !== 'offline') return;
      this.#link?.nudge?.();
      this.#state.doubt();
      this.#wake();
      this.#sync();
    };
    globalThis.addEventListener?.('online', nudge, { signal });
    globalThis.document?.addEventListener('visibilitychange', nudge, { signal });
    this.connect();
  }

  get snapshot() { return this.#snapshot ??= this.#look(); }

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  connect() {
    this.#drop('connecting');
    this.#start(this.#run = {});
  }

  close() {
    this.#drop('closed');
    this.#closed.abort();
    this.#listeners.clear();
  }

  setFilter(filter = {}) {
    this.#filter = filter;
    this.#set();
    this.#wake();
    this.#sync();
  }

  async loadMore() {
    const view = this.#state.view(this.#filter);
    if (!view.cursor || this.#more === view) return;
    this.#more = view;
    this.#set();
    let failed;
    await this.#page(this.#state, view, view.cursor).catch((error) => { failed = error; });
    this.#more = null;
    this.#set(failed);
    this.#sync();
  }

  markSeen(ids) { return this.#mark('seen', ids, { seen: true }); }
  read(ids) { return this.#mark('read', ids, { read: true }); }
  unread(ids) { return this.#mark('unread', ids, { read: false }); }
  archive(ids) { return this.#mark('archive', ids, { archived: true }); }
  unarchive(ids) { return this.#mark('unarchive', ids, { archived: false }); }
  delete(ids) { return this.#mark('delete', ids); }
  unsnooze(id) { return this.#mark('unsnooze', id, { snoozed_until: null }); }
  snooze(id, until) {
    const time = new Date(until).toISOString();
    return this.#mark('snooze', id, { snoozed_until: time }, time);
  }

  markAll(action, filter = {}) {
    const upTo = Math.max(this.#state.rev, 0);
    return this.#act({ fits: (n) => n.rev <= upTo && matches(n, filter), verb: action }, () => this.#request('POST', '/v1/inbox/mark-all', { action, up_to_rev: upTo, filter }));
  }

  #mark(action, ids, patch, until) {
    const some = [ids].flat();
    return this.#act({ fits: (n) => some.includes(n.id), verb: action, until }, async () => {
      if (Array.isArray(ids)) return this.#request('POST', '/v1/inbox/bulk', { ids, action });
      const answer = await this.#request(patch ? 'PATCH' : 'DELETE', `/v1/inbox/${ids}`, patch).catch((error) => { if (error.status !== 404) throw error; });
      if (!answer) this.#state.gone(ids);
      return answer;
    });
  }

  /** Shows an action at once, sends it after those before it, takes it back if it fails. */
  async #act(op, send) {
    const user = this.#user;
    op.at = new Date().toISOString();
    this.#actions.add(op);
    this.#set();
    try {
      const answer = await (this.#sent = this.#sent.catch(() => {}).then(() => user === this.#user && send()));
      if (answer && user === this.#user) {
        this.#state.answer(answer);
        // What it did to several is not in the answer: it stays on top of the state until that has come as an event or a change.
        if (!answer.notification) op.upTo = answer.rev;
      }
    } finally {
      if (op.upTo === undefined) this.#actions.delete(op);
      this.#set();
      this.#sync();
    }
  }

  async #start(run) {
    for (let failures = 0; run === this.#run; failures += 1) {
      try {
        await this.#token();
        const channel = await channelOf(this.#user);
        if (run !== this.#run) return;
        const { pusher, url, appKey } = this.#options;
        const hear = (name, data) => run === this.#run && this.#hear(name, data);
        const authorize = (socket) => this.#request('POST', '/pusher/auth', new URLSearchParams({ socket_id: socket, channel_name: channel }));
        this.#link = pusher ? follow(pusher, channel, hear)
          : new Socket(`${url.replace('http', 'ws')}/app/${appKey}?protocol=7&client=herald-inbox&version=1.0`, channel, authorize, hear);
        return this.#sync();
      } catch (error) {
        if (run !== this.#run) return;
        this.#set(error, error.code === 'signed_out' ? 'signed-out' : 'offline');
        await new Promise((resolve) => setTimeout(resolve, patience(failures, 5) * 1000));
      }
    }
  }

  #drop(status) {
    this.#run = null;
    clearTimeout(this.#timer);
    this.#link?.close();
    this.#link = null;
    this.#set(null, status);
    this.#wake();
  }

  #hear(name, data) {
    if (name === 'pusher:subscription_succeeded') {
      this.#set(null, 'online');
      // `inbox.state` follows, unless the page had subscribed before, or the database is down.
      this.#timer = setTimeout(() => { this.#state.doubt(); this.#sync(); }, 3000);
    } else if (name === 'down') this.#set(this.#error, 'offline');
    else if (name === 'pusher:subscription_error') this.#set(failure(data.status, 'subscription', data.error), 'offline');
    else if (name === 'stopped') {
      this.#set(null, 'stopped');
      this.#token().catch(() => {}); // signed out, perhaps
    } else {
      if (name === 'inbox.state') clearTimeout(this.#timer);
      const state = this.#state;
      const cut = state.event(name, data);
      if (cut) this.#request('GET', `/v1/inbox/${cut}`).then((answer) => { state.answer(answer); this.#set(); }, () => {});
      this.#set(this.#error);
      this.#sync();
    }
  }

  /** Asks for what is missing until nothing is: one at a time; what comes within a moment, together. */
  async #sync() {
    const isMissing = () => this.#user && this.#status !== 'closed' && (this.#state.reset || this.#state.behind || this.#state.view(this.#filter).horizon === undefined);
    if (this.#isSyncing) return;
    this.#isSyncing = true;
    if (this.#state.behind) await this.#pause(0.05);
    for (let failures = 0; isMissing();) {
      let state = this.#state;
      if (state.reset) state = new InboxState();
      const view = state.view(this.#filter);
      try {
        if (view.horizon === undefined) await this.#page(state, view);
        else {
          const since = state.rev;
          for (let from = since; from !== null;) {
            const answer = await this.#request('GET', `/v1/inbox/changes?since=${from}&limit=500`);
            state.changes(since, answer);
            from = answer.next;
          }
        }
        if (this.#state.reset) { // events of the meantime went to the old one
          state.doubt();
          this.#state = state;
        }
        failures = 0;
        this.#set();
      } catch (error) {
        this.#set(error);
        await this.#pause(Math.max(error.retryAfter ?? 0, patience(failures)));
        failures += 1;
      }
    }
    this.#isSyncing = false;
  }

  async #page(state, view, cursor) {
    const query = new URLSearchParams({ limit: this.#options.pageSize, ...(cursor && { cursor }) });
    for (const [name, values] of Object.entries(view.filter)) for (const value of [values].flat()) query.append(name, value);
    state.page(view, await this.#request('GET', `/v1/inbox?${query}`));
  }

  #pause(seconds) {
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, seconds * 1000);
    });
  }

  async #request(method, path, body) {
    const { url, appKey } = this.#options;
    const address = new URL(url + path);
    if (appKey) address.searchParams.set('app', appKey);
    const isJson = body && !(body instanceof URLSearchParams);
    for (let isAgain = false; ; isAgain = true) {
      const response = await fetch(address, {
        method,
        headers: { Authorization: `Bearer ${await this.#token(isAgain)}`, ...(isJson && { 'Content-Type': 'application/json' }) },
        body: isJson ? JSON.stringify(body) : body,
        keepalive: method !== 'GET', // a click may leave the page
        cache: 'no-store',
        signal: AbortSignal.timeout(15_000),
      });
      if (response.ok) return response.status === 204 ? null : response.json();
      if (response.status === 401 && !isAgain) continue;
      const { code, message } = (await response.json().catch(() => ({}))).error ?? {};
      throw failure(response.status, code, message ?? `Herald answered ${response.status}`, Number(response.headers.get('Retry-After')) || 0);
    }
  }

  async #token(isAgain) {
    const { getToken, userId } = this.#options;
    const token = await getToken(isAgain ? { skipCache: true } : undefined);
    const user = token ? userId ?? subject(token) : undefined;
    const before = this.#user;
    if (user !== before) {
      this.#user = user;
      this.#state = new InboxState();
      this.#actions.clear();
      if (before) this.connect();
    }
    if (!token) throw failure(401, 'signed_out', 'nobody is signed in');
    return token;
  }

  /** Notes what has changed; listeners are told once for all that changes in one go. */
  #set(error = null, status = this.#status) {
    this.#error = error;
    this.#status = status;
    const isToBeTold = this.#snapshot !== null;
    this.#snapshot = null;
    if (isToBeTold) queueMicrotask(() => {
      for (const op of this.#actions) if (op.upTo <= this.#state.rev) this.#actions.delete(op);
      this.#snapshot = this.#look();
      const fresh = this.#state.fresh.splice(0);
      for (const listener of this.#listeners) listener(this.#snapshot, fresh);
    });
  }

  #look() {
    const state = this.#state;
    const view = state.view(this.#filter);
    const change = (n) => {
      for (const op of this.#actions) {
        if (!n || !op.fits(n)) continue;
        const changed = EFFECTS[op.verb](n, op.at, op.until);
        n = changed && { ...n, ...changed };
      }
      return n;
    };
    const count = (name, member) => {
      const open = (n) => (n && matches(n) && !n[member] ? 1 : 0);
      return Math.max(0, state.held().reduce((sum, n) => sum + open(change(n)) - open(n), state.counts[name]));
    };
    return {
      items: state.list(view, change),
      counts: { unread: count('unread', 'read_at'), unseen: count('unseen', 'seen_at') },
      rev: state.rev,
      user: this.#user,
      filter: this.#filter,
      status: this.#status,
      error: this.#error,
      loading: view.horizon === undefined || this.#more === view,
      hasMore: !!view.cursor,
    };
  }
}

// --- The element ---

const LABELS = {
  title: 'Notifications', count: '{n} new', arrived: 'New notification: {n}',
  tabAll: 'All', tabUnread: 'Unread', tabArchived: 'Archived', tabSnoozed: 'Snoozed',
  markAll: 'Mark all as read', more: 'Load more', loading: 'Loading…', empty: 'You are all caught up', signedOut: 'Sign in to see your notifications',
  failed: 'That did not work', stopped: 'Disconnected', retry: 'Try again',
  read: 'Mark as read', unread: 'Mark as unread', archive: 'Archive', unarchive: 'Move to inbox', delete: 'Delete', snooze: 'Remind me later', unsnooze: 'Bring back now',
  hour: 'In an hour', hours: 'In four hours', tomorrow: 'Tomorrow morning', week: 'Next week', high: 'Important', critical: 'Urgent',
};

const TABS = { tabAll: {}, tabUnread: { status: 'unread' }, tabArchived: { archived: 'only' }, tabSnoozed: { snoozed: 'only' } };

const morning = (days) => new Date().setHours(24 * days + 9, 0, 0, 0);
const SNOOZES = {
  hour: () => Date.now() + 3_600_000,
  hours: () => Date.now() + 4 * 3_600_000,
  tomorrow: () => morning(1),
  week: () => morning((8 - new Date().getDay()) % 7 || 7),
};

const ICONS = {
  bell: 'M18 9A6 6 0 0 0 6 9c0 6-3 7-3 8h18c0-1-3-2-3-8M10 21h4',
  read: 'M4 12l5 5L20 6',
  unread: 'M12 8a4 4 0 1 0 .1 0',
  snooze: 'M12 3a9 9 0 1 0 .1 0M12 7v5l3 2',
  archive: 'M3 4h18v4H3zM5 8v12h14V8M10 12h4',
  back: 'M9 5l-5 5 5 5M4 10h11a5 5 0 0 1 0 10h-3',
  delete: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13',
};

const STYLE = `
:host { display: inline-block; color-scheme: light dark; font: 14px/1.45 var(--herald-font, system-ui, sans-serif);
  --accent: var(--herald-accent, light-dark(#4f46e5, #9a9bff)); --back: var(--herald-background, light-dark(#fff, #18191d));
  --text: var(--herald-text, light-dark(#18181b, #ededf0)); --muted: var(--herald-muted, light-dark(#62626b, #a2a2ad));
  --line: var(--herald-border, light-dark(#e8e8ec, #2f3037)); --hover: var(--herald-hover, light-dark(#f4f4f7, #222329)); --danger: var(--herald-danger, light-dark(#c81e3a, #ff7a8a)) }
:host([theme=light]) { color-scheme: light }
:host([theme=dark]) { color-scheme: dark }
[hidden] { display: none !important }
* { box-sizing: border-box }
button { font: inherit; color: inherit; background: none; border: 0; padding: 5px 10px; border-radius: 8px; cursor: pointer }
button:hover { background: color-mix(in srgb, currentColor 10%, transparent) }
:focus-visible { outline: 2px solid var(--accent); outline-offset: -2px }
svg { display: block; width: 1em; height: 1em; fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linecap: round; stroke-linejoin: round }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
.bell { position: relative; padding: 9px; font-size: var(--herald-bell-size, 22px); color: var(--herald-bell-color, inherit) }
.badge { position: absolute; top: 2px; inset-inline-start: 52%; min-width: 18px; padding: 0 5px; border-radius: 9px; font: 600 11px/18px var(--herald-font, system-ui); background: var(--herald-badge, #d92d49); color: var(--herald-badge-text, #fff) }
[popover] { position: fixed; inset: auto; margin: 0; padding: 0; overflow: hidden; background: var(--back); color: var(--text); border: 1px solid var(--line); border-radius: var(--herald-radius, 14px); box-shadow: 0 12px 40px -8px rgb(0 0 0 / .3) }
.panel { width: min(var(--herald-width, 400px), 100vw - 16px); height: var(--herald-height, 600px) }
.panel:popover-open { display: flex; flex-direction: column }
header, .tabs, .notice, article, .meta { display: flex; align-items: center; gap: 8px; padding: 12px 16px 8px }
h2 { flex: 1; margin: 0; font-size: 16px }
.text { color: var(--accent) }
.tabs { gap: 4px; padding: 0 8px 10px; color: var(--muted); border-bottom: 1px solid var(--line) }
[aria-selected=true] { color: var(--text); background: var(--hover) }
.notice { padding-block: 4px; justify-content: space-between; color: var(--danger) }
.list { flex: 1; overflow-y: auto; overscroll-behavior: contain }
article { position: relative; gap: 12px; align-items: start; padding-block: 12px; border-bottom: 1px solid var(--line); cursor: pointer; overflow-wrap: anywhere }
article:is(:hover, :focus) { background: var(--hover) }
.face { flex: none; display: grid; place-items: center; width: 36px; height: 36px; border-radius: 50%; object-fit: cover; background: color-mix(in srgb, var(--accent) 15%, transparent); color: var(--accent); font-size: 16px }
.body { flex: 1 }
.title { color: inherit; text-decoration: none }
.unread .title { font-weight: 600 }
.unread::after { content: ''; width: 8px; height: 8px; margin-top: 6px; border-radius: 50%; background: var(--accent) }
.message { color: var(--muted); font-size: 13px; white-space: pre-line }
.meta { padding: 0; min-height: 28px; color: var(--muted); font-size: 12px }
.severity { color: var(--danger); font-weight: 600 }
.severity:empty { display: none }
.acts { display: flex; margin-inline-start: auto; opacity: 0 }
article:is(:hover, :focus-within) .acts { opacity: 1 }
@media (hover: none) { .acts { opacity: 1 } }
.acts button { padding: 6px; font-size: 16px }
.empty { padding: 64px 24px; text-align: center; color: var(--muted) }
.more { display: block; width: 100%; padding: 14px }
.menu { padding: 4px }
.menu button { display: block; width: 100%; text-align: start }
@media (prefers-reduced-motion: no-preference) {
  [popover] { animation: open .15s }
  @keyframes open { from { opacity: 0; translate: 0 -6px } }
}`;

/** Where a page may lead to: http, https, or what is relative to it. */
function safe(address) {
  const url = URL.canParse(address ?? '', document.baseURI) && new URL(address, document.baseURI);
  return address && /^https?:$/.test(url.protocol) ? url.href : null;
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') node.textContent === value || (node.textContent = value);
    else if (name.startsWith('on')) node[name] = value;
    else if (value === null) node.removeAttribute(name);
    else node.setAttribute(name, value);
  }
  return node;
}

/** An element. Whatever a notification says becomes text or an attribute, never HTML. */
function h(tag, attributes, ...children) {
  const node = set(document.createElement(tag), tag === 'button' ? { type: 'button', ...attributes } : attributes);
  node.append(...children);
  return node;
}

function icon(name) {
  const [svg, path] = ['svg', 'path'].map((tag) => document.createElementNS('http://www.w3.org/2000/svg', tag));
  svg.append(set(path, { d: ICONS[name] ?? ICONS.back }));
  return set(svg, { viewBox: '0 0 24 24', 'aria-hidden': true });
}

/** Below its anchor or, where there is more room, above; its end at the anchor's, inside the window. */
function place(box, anchor) {
  const { left, right, top, bottom } = anchor.getBoundingClientRect();
  const below = innerHeight - bottom;
  const isAbove = below < 300 && top > below;
  const start = anchor.matches(':dir(rtl)') ? left : right - box.offsetWidth;
  Object.assign(box.style, {
    left: `${Math.max(8, Math.min(start, innerWidth - box.offsetWidth - 8))}px`,
    top: isAbove ? 'auto' : `${bottom + 6}px`,
    bottom: isAbove ? `${below + top - bottom + 6}px` : 'auto',
    maxHeight: `${Math.max(top, below) - 16}px`,
  });
}

/** `<herald-inbox>`: the button with its badge, and the panel with the list. */
export class HeraldInboxElement extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ['url', 'app-key', 'user-id'];
  #tab = 'tabAll';
  #rows = new Map();
  #active; // the id of the row that the Tab key reaches
  #counts;
  #seen; // the revision up to which all were marked as seen
  #failed = false;

  connectedCallback() { this.connect(); }
  attributeChangedCallback() { if (this.inbox) this.connect(); }
  disconnectedCallback() { this.inbox?.close(); }

  connect() {
    this.inbox?.close();
    this.inbox = null;
    // Properties that are set in the same go count.
    queueMicrotask(() => {
      if (this.inbox || !this.isConnected) return;
      const attribute = (name) => this.getAttribute(name) ?? undefined;
      this.inbox = new HeraldInbox({
        url: attribute('url'), appKey: attribute('app-key'), userId: attribute('user-id'), pusher: this.pusher,
        getToken: (how) => (this.getToken ?? clerk)(how), filter: TABS[this.#tab],
      });
      this.#build();
      this.inbox.subscribe((now, fresh) => this.#tell(now, fresh));
      this.#render();
    });
  }

  open() { this.panel.showPopover(); }
  close() { this.panel.hidePopover(); this.button.focus(); }

  #label(name, n) {
    const label = this.labels?.[name] ?? LABELS[name];
    return typeof label === 'function' ? label(n) : label.replace('{n}', () => n);
  }

  #build() {
    const button = (name, onclick, more) => h('button', { text: this.#label(name), class: 'text', part: name, onclick, ...more });
    this.badge = h('span', { class: 'badge', part: 'badge' });
    this.button = h('button', { class: 'bell', part: 'button', 'aria-haspopup': 'dialog', 'aria-controls': 'panel', 'aria-expanded': false }, icon('bell'), this.badge);
    this.live = h('div', { class: 'sr', role: 'status' });
    this.readAll = button('markAll', () => this.#do((inbox) => inbox.markAll('read')));
    this.tabs = h('div', { class: 'tabs', part: 'tabs', role: 'tablist', onkeydown: (event) => this.#walk(event, this.tabs) },
      ...Object.keys(TABS).map((tab) => button(tab, () => this.#show(tab), { class: '', part: 'tab', role: 'tab', 'aria-controls': 'list', onfocus: () => this.#show(tab) })));
    this.notice = h('div', { class: 'notice', part: 'notice', role: 'alert' }, h('span', {}), button('retry', () => { this.#failed = false; this.inbox.connect(); }));
    this.feed = h('div', { role: 'feed', 'aria-label': this.#label('title'), onkeydown: (event) => this.#walk(event, this.feed) });
    this.empty = h('div', { class: 'empty', part: 'empty' });
    this.more = button('more', () => this.inbox.loadMore(), { class: 'text more' });
    this.menu = h('div', { class: 'menu', part: 'menu', popover: 'auto', role: 'menu', onkeydown: (event) => this.#walk(event, this.menu) },
      ...Object.entries(SNOOZES).map(([name, until]) => button(name, () => {
        this.menu.hidePopover();
        this.#do((inbox) => inbox.snooze(this.menu.of, until()));
      }, { class: '', role: 'menuitem' })));
    this.list = h('div', { class: 'list', part: 'list', id: 'list', role: 'tabpanel', 'aria-label': this.#label(this.#tab) }, this.feed, this.empty, this.more);
    this.panel = h('div', {
      class: 'panel', part: 'panel', id: 'panel', popover: 'auto', role: 'dialog', 'aria-label': this.#label('title'), tabindex: -1,
      ontoggle: (event) => this.#toggled(event.newState === 'open'),
      onkeydown: (event) => {
        if (event.key !== 'Escape') return;
        event.preventDefault();
        if (this.menu.matches(':popover-open')) this.menu.hidePopover(); // gives the focus back by itself
        else this.close();
      },
    }, h('header', {}, h('h2', { text: this.#label('title') }), this.readAll), this.tabs, this.notice, this.list, this.menu);
    this.button.popoverTargetElement = this.panel;
    const root = this.shadowRoot ?? this.attachShadow({ mode: 'open' });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    root.replaceChildren(this.button, this.live, this.panel);
    this.#rows.clear();
    this.observer = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && this.more.click(), { root: this.list, rootMargin: '200px' });
  }

  #toggled(isOpen) {
    set(this.button, { 'aria-expanded': isOpen });
    onresize = onscroll = null;
    if (!isOpen) return;
    place(this.panel, this.button);
    this.#render();
    (this.#rows.get(this.#active) ?? this.panel).focus();
  }

  #show(tab) {
    this.#tab = tab;
    this.inbox.setFilter(TABS[tab]);
  }

  /** Arrow keys, Home and End among the children of `box`. */
  #walk(event, { children }) {
    const nodes = [...children];
    const at = nodes.findIndex((node) => node.contains(this.shadowRoot.activeElement));
    const step = this.matches(':dir(rtl)') ? -1 : 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, ArrowRight: at + step, ArrowLeft: at - step, Home: 0, End: nodes.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    nodes[to]?.focus();
  }

  /** What the user asked for. The client takes back what fails; here it is said. */
  async #do(action) {
    this.#failed = await action(this.inbox).then(() => false, () => true);
    this.#render();
  }

  #tell({ counts }, fresh) {
    const emit = (name, detail) => this.dispatchEvent(new CustomEvent(`herald-${name}`, { detail, bubbles: true, composed: true }));
    this.#render();
    for (const notification of fresh) emit('notification', { notification });
    if (this.#counts !== (this.#counts = `${counts.unread} ${counts.unseen}`)) emit('count', counts);
    if (fresh.length) this.live.textContent = fresh.length > 1 ? this.#label('count', fresh.length) : this.#label('arrived', fresh[0].title);
  }

  #render() {
    const { items, counts, status, error, loading, hasMore, rev } = this.inbox.snapshot;
    const many = counts.unseen > 99 ? '99+' : `${counts.unseen}`;
    this.badge.hidden = !counts.unseen;
    set(this.badge, { text: many });
    set(this.button, { 'aria-label': this.#label('title') + (counts.unseen ? `, ${this.#label('count', many)}` : '') });
    if (!this.panel.matches(':popover-open')) return;
    if (counts.unseen && !document.hidden && rev !== this.#seen) {
      this.#seen = rev;
      this.inbox.markAll('seen').catch(() => {});
    }
    [...this.tabs.children].forEach((tab, at) => {
      const isSelected = Object.keys(TABS)[at] === this.#tab;
      set(tab, { 'aria-selected': isSelected, tabindex: isSelected ? 0 : -1 });
    });
    const isOut = status === 'signed-out';
    const notice = isOut ? '' : error || this.#failed ? 'failed' : status === 'stopped' ? status : '';
    this.readAll.hidden = !counts.unread;
    this.notice.hidden = !notice;
    if (notice) set(this.notice.firstChild, { text: this.#label(notice) });
    this.#list(items, hasMore);
    set(this.feed, { 'aria-busy': loading });
    this.empty.hidden = items.length || error && !isOut;
    set(this.empty, { text: this.#label(isOut ? 'signedOut' : loading ? 'loading' : 'empty') });
    this.more.hidden = !hasMore;
    this.observer.disconnect();
    if (hasMore && !loading && !error) this.observer.observe(this.more);
  }

  #list(items, hasMore) {
    const before = [...this.#rows.keys()];
    const { activeElement } = this.shadowRoot;
    const hadFocus = this.feed.contains(activeElement);
    const ids = items.map((n) => n.id);
    // The neighbour of a row that goes takes over.
    if (!ids.includes(this.#active)) this.#active = before.slice(before.indexOf(this.#active) + 1).find((id) => ids.includes(id)) ?? ids.at(before.length ? -1 : 0);
    for (const id of before) if (!ids.includes(id)) { this.#rows.get(id).remove(); this.#rows.delete(id); }
    items.forEach((n, at) => {
      if (!this.#rows.has(n.id)) this.#rows.set(n.id, this.#row(n.id));
      const row = this.#rows.get(n.id);
      row.show(n);
      set(row, { 'aria-posinset': at + 1, 'aria-setsize': hasMore ? -1 : ids.length });
      if (this.feed.children[at] !== row) this.feed.insertBefore(row, this.feed.children[at]);
    });
    if (hadFocus && !this.feed.contains(this.shadowRoot.activeElement)) (this.#rows.get(this.#active) ?? this.panel).focus();
  }

  #row(id) {
    const face = h('div', { class: 'face', part: 'avatar', 'aria-hidden': true });
    const state = h('span', { class: 'sr' });
    const title = h('a', { class: 'title', part: 'item-title', tabindex: -1 });
    const message = h('div', { class: 'message', part: 'message' });
    const severity = h('span', { class: 'severity', part: 'severity' });
    const time = h('time', { part: 'time' });
    const acts = h('div', { class: 'acts', part: 'actions' }, ...[0, 1, 2, 3].map(() => h('button', { onclick: (event) => {
      event.stopPropagation();
      const { verb } = acts.children[[...acts.children].indexOf(event.currentTarget)];
      if (verb !== 'snooze') return this.#do((inbox) => inbox[verb](id));
      this.menu.of = id;
      this.menu.showPopover();
      place(this.menu, event.currentTarget);
      this.menu.firstChild.focus();
    } })));
    const row = h('article', {
      part: 'item', 'aria-labelledby': id,
      onfocus: () => { this.#active = id; this.#render(); },
      onkeydown: (event) => event.key === 'Enter' && event.target === row && title.click(),
      onclick: (event) => {
        if (event.target !== title) return title.click();
      },
    }, face, h('div', { class: 'body' }, h('div', { id }, state, title), message, h('div', { class: 'meta' }, severity, time, acts)));
    let shown;
    row.show = (n) => {
      const tabindex = id === this.#active ? 0 : -1;
      set(row, { class: n.read_at ? '' : 'unread', tabindex });
      set(state, { text: n.read_at ? '' : `${this.#label('tabUnread')}. ` });
      set(title, { text: n.group_count > 1 ? `${n.title} (${n.group_count})` : n.title, href: safe(n.action_url) });
      set(message, { text: n.message ?? '' });
      set(severity, { text: n.severity in LABELS ? this.#label(n.severity) : '' });
      const language = this.closest('[lang]')?.lang || undefined;
      set(time, { text: ago(n.visible_at, language), datetime: n.visible_at, title: new Date(n.visible_at).toLocaleString(language) });
      const image = safe(n.actor?.image_url ?? n.image_url);
      if (shown !== (shown = image ?? n.actor?.name ?? '')) face.replaceChildren(image ? h('img', { class: 'face', alt: '', src: image }) : shown ? [...shown][0] : icon('bell'));
      [n.read_at ? 'unread' : 'read', n.snoozed_until ? 'unsnooze' : 'snooze', n.archived_at ? 'unarchive' : 'archive', 'delete'].forEach((verb, at) => {
        const act = acts.children[at];
        set(act, { tabindex, title: this.#label(verb), 'aria-label': this.#label(verb) });
        if (act.verb !== verb) act.replaceChildren(icon(act.verb = verb));
      });
    };
    return row;
  }
}

const UNITS = { year: 31_536_000, month: 2_592_000, week: 604_800, day: 86_400, hour: 3600, minute: 60, second: 1 };

function ago(time, language) {
  const seconds = (Date.parse(time) - Date.now()) / 1000;
  const [unit, size] = Object.entries(UNITS).find(([, size]) => Math.abs(seconds) >= size) ?? ['second', Infinity];
  return new Intl.RelativeTimeFormat(language, { numeric: 'auto' }).format(Math.trunc(seconds / size), unit);
}

globalThis.customElements?.define('herald-inbox', HeraldInboxElement);
