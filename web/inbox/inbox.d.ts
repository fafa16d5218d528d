/** A notification, as Herald's API has it. Times are RFC 3339 in UTC. */
export interface Notification {
  id: string;
  type: string;
  severity: 'low' | 'normal' | 'high' | 'critical';
  title: string;
  message: string | null;
  action_url: string | null;
  image_url: string | null;
  actor: { id?: string; name?: string; image_url?: string; [member: string]: unknown } | null;
  object: Record<string, unknown> | null;
  data: unknown;
  org_id: string | null;
  transaction_id: string | null;
  group_key: string | null;
  group_count: number;
  rev: number | null;
  visible_at: string;
  seen_at: string | null;
  read_at: string | null;
  archived_at: string | null;
  snoozed_until: string | null;
  expires_at: string | null;
  created_at: string;
  updated_at: string;
}

/** Which notifications are meant; by default all that are visible and not archived. */
export interface Filter {
  status?: 'all' | 'unread' | 'read' | 'unseen';
  archived?: 'exclude' | 'only' | 'include';
  snoozed?: 'exclude' | 'only';
  type?: string | string[];
  severity?: Notification['severity'];
  org_id?: string;
  created_after?: string;
}

export interface Counts { unread: number; unseen: number }

/** What a listener is told: the whole of what is known, made anew whenever something changes. */
export interface Snapshot {
  items: Notification[];
  counts: Counts;
  rev: number;
  user: string | undefined;
  filter: Filter;
  status: 'connecting' | 'online' | 'offline' | 'stopped' | 'signed-out' | 'closed';
  error: (Error & { status?: number; code?: string }) | null;
  loading: boolean;
  hasMore: boolean;
}

export interface Options {
  /** Where Herald is; by default where this file came from. */
  url?: string;
  /** The page's own Pusher or Laravel Echo, already authorized. Without one a socket is opened. */
  pusher?: unknown;
  /** The app's key; needed for a socket of its own. */
  appKey?: string;
  /** A session token; by default Clerk's. */
  getToken?: (how?: { skipCache?: boolean }) => Promise<string | null | undefined>;
  /** The user, where that is not the token's `sub`. */
  userId?: string;
  filter?: Filter;
  pageSize?: number;
}

/** A user's inbox, from its making to `close`. Actions show at once and are taken back if they fail. */
export class HeraldInbox {
  constructor(options: Options);
  readonly snapshot: Snapshot;
  /** Calls the listener at every change, with what came by itself since; returns what ends that. */
  subscribe(listener: (snapshot: Snapshot, arrived: Notification[]) => void): () => void;
  /** Connects anew, after a sign-in for instance. */
  connect(): void;
  close(): void;
  setFilter(filter?: Filter): void;
  loadMore(): Promise<void>;
  markSeen(ids: string | string[]): Promise<unknown>;
  read(ids: string | string[]): Promise<unknown>;
  unread(ids: string | string[]): Promise<unknown>;
  archive(ids: string | string[]): Promise<unknown>;
  unarchive(ids: string | string[]): Promise<unknown>;
  delete(ids: string | string[]): Promise<unknown>;
  snooze(id: string, until: Date | number | string): Promise<unknown>;
  unsnooze(id: string): Promise<unknown>;
  /** Only what is known by now: what arrives meanwhile is left alone. */
  markAll(action: 'seen' | 'read' | 'archive', filter?: Filter): Promise<unknown>;
}

/** An event of a user's channel, as its data has it. */
export interface InboxEvent {
  rev?: number;
  at?: string;
  counts?: Counts;
  notification?: Partial<Notification> & { id: string };
  ids?: string[];
  up_to_rev?: number;
  filter?: Filter;
  truncated?: boolean;
}

/** A list under a filter; `cursor` is where it goes on. */
export interface View { filter: Filter; cursor?: string | null; horizon?: string }

/** The client's rule without a connection: events and answers in, lists and counts out. */
export class InboxState {
  /** The revision up to which all is known; -1 before the first page. */
  rev: number;
  counts: Counts;
  /** The server's revisions begin anew: this state is of no use any more. */
  reset: boolean;
  /** Notifications that came by themselves. */
  fresh: Notification[];
  /** Whether `changes` are to be asked for. */
  readonly behind: boolean;
  doubt(): void;
  view(filter?: Filter): View;
  /** Returns the id of a notification that came cut and has to be fetched. */
  event(name: string, event: InboxEvent): string | undefined;
  page(view: View, answer: { items: Notification[]; next_cursor: string | null; rev: number; counts: Counts }): void;
  changes(since: number, answer: {
    changes: { rev: number; notification?: Notification; deleted?: string }[];
    next: string | null; reset: boolean; rev: number; counts: Counts;
  }): void;
  answer(answer: { notification?: Notification; rev: number; counts: Counts }): void;
  gone(id: string): void;
  held(): Notification[];
  list(view: View): Notification[];
}

/** Whether the server lists a notification under a filter. */
export function matches(notification: Notification, filter: Filter): boolean;

/** The name of a user's channel. */
export function channelOf(user: string): Promise<string>;

/** `<herald-inbox url app-key user-id theme>`: the bell and its panel. */
export class HeraldInboxElement extends HTMLElement {
  pusher?: unknown;
  getToken?: Options['getToken'];
  labels?: Record<string, string | ((n: number | string) => string)>;
  readonly inbox: HeraldInbox | null | undefined;
  connect(): void;
  open(): void;
  close(): void;
}

declare global {
  interface HTMLElementTagNameMap { 'herald-inbox': HeraldInboxElement }
  interface HTMLElementEventMap {
    'herald-notification': CustomEvent<{ notification: Notification }>;
    'herald-count': CustomEvent<Counts>;
  }
}
