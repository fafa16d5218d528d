-- Users, their notifications, and what is still to be told (section 8.3). Times are microseconds since 1970 in UTC; nothing reads the
-- database's clock.

CREATE TABLE store (
  id TEXT NOT NULL PRIMARY KEY
) STRICT;

CREATE TABLE users (
  id                TEXT NOT NULL PRIMARY KEY CHECK (id <> '' AND length(id) <= 255),
  email             TEXT,
  name              TEXT,
  image_url         TEXT,
  locale            TEXT,
  timezone          TEXT,
  public_metadata   TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(public_metadata)),
  banned            INTEGER NOT NULL DEFAULT 0,
  source_updated_at INTEGER NOT NULL DEFAULT 0,
  created_at        INTEGER NOT NULL,
  updated_at        INTEGER NOT NULL
) STRICT;
CREATE INDEX users_email_idx ON users (lower(email));

-- Whoever was deleted does not come back by late news.
CREATE TABLE user_tombstones (
  id         TEXT NOT NULL PRIMARY KEY,
  deleted_at INTEGER NOT NULL
) STRICT;

-- Who is not served any more, and since when.
CREATE TABLE ended_users (
  user_id  TEXT NOT NULL PRIMARY KEY,
  ended_at INTEGER NOT NULL
) STRICT;
CREATE INDEX ended_users_age_idx ON ended_users (ended_at);
CREATE TABLE ended_sessions (
  session_id TEXT NOT NULL PRIMARY KEY,
  user_id    TEXT,
  ended_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX ended_sessions_age_idx ON ended_sessions (ended_at);

CREATE TABLE org_members (
  org_id            TEXT NOT NULL,
  user_id           TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  role              TEXT NOT NULL,
  source_updated_at INTEGER NOT NULL DEFAULT 0,
  deleted_at        INTEGER,
  PRIMARY KEY (org_id, user_id)
) STRICT;
CREATE INDEX org_members_user_idx ON org_members (user_id);
CREATE INDEX org_members_left_idx ON org_members (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE inbox_state (
  app_id     TEXT NOT NULL,
  user_id    TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  rev        INTEGER NOT NULL DEFAULT 0,
  purged_rev INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (app_id, user_id)
) STRICT;

CREATE TABLE user_notifications (
  id             TEXT NOT NULL PRIMARY KEY,
  app_id         TEXT NOT NULL DEFAULT 'default',
  user_id        TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  org_id         TEXT,
  type           TEXT NOT NULL CHECK (type <> '' AND length(type) <= 200),
  severity       TEXT NOT NULL DEFAULT 'normal' CHECK (severity IN ('low','normal','high','critical')),
  title          TEXT NOT NULL,
  message        TEXT,
  action_url     TEXT,
  image_url      TEXT,
  actor          TEXT CHECK (actor IS NULL OR json_valid(actor)),
  object         TEXT CHECK (object IS NULL OR json_valid(object)),
  data           TEXT CHECK (data IS NULL OR json_valid(data)),
  transaction_id TEXT,
  group_key      TEXT,
  group_count    INTEGER NOT NULL DEFAULT 1 CHECK (group_count >= 1),
  rev            INTEGER,
  visible_at     INTEGER NOT NULL,
  announced_at   INTEGER,
  seen_at        INTEGER,
  read_at        INTEGER,
  archived_at    INTEGER,
  snoozed_until  INTEGER,
  expires_at     INTEGER,
  deleted_at     INTEGER,
  created_at     INTEGER NOT NULL,
  updated_at     INTEGER NOT NULL,
  CHECK (read_at IS NULL OR seen_at IS NOT NULL),
  CHECK (snoozed_until IS NULL OR visible_at = snoozed_until)
) STRICT;
CREATE INDEX un_transaction_idx ON user_notifications (app_id, transaction_id) WHERE transaction_id IS NOT NULL;
CREATE UNIQUE INDEX un_open_group_uq ON user_notifications (app_id, user_id, group_key)
  WHERE group_key IS NOT NULL AND read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL;
CREATE INDEX un_inbox_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC)
  WHERE archived_at IS NULL AND deleted_at IS NULL;
-- Counting looks at a thousand rows: with all that it asks for in the index, at none of the table.
CREATE INDEX un_unread_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC, expires_at, read_at, archived_at, deleted_at)
  WHERE read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL;
-- Who has seen all of many unread ones would have all of them looked at to count none.
CREATE INDEX un_unseen_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC, expires_at, seen_at, archived_at, deleted_at)
  WHERE seen_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL;
CREATE INDEX un_archived_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC)
  WHERE archived_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX un_all_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX un_changes_idx ON user_notifications (app_id, user_id, rev, id);
CREATE INDEX un_due_idx ON user_notifications (visible_at) WHERE announced_at IS NULL AND deleted_at IS NULL;
CREATE INDEX un_expiry_idx ON user_notifications (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX un_deleted_idx ON user_notifications (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE notification_dedupe (
  app_id          TEXT NOT NULL,
  user_id         TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  transaction_id  TEXT NOT NULL CHECK (transaction_id <> '' AND length(transaction_id) <= 255),
  request_hash    TEXT NOT NULL,
  notification_id TEXT,
  created_at      INTEGER NOT NULL,
  PRIMARY KEY (app_id, user_id, transaction_id)
) STRICT;
CREATE INDEX notification_dedupe_age_idx ON notification_dedupe (created_at);

CREATE TABLE topic_subscriptions (
  app_id     TEXT NOT NULL,
  topic      TEXT NOT NULL CHECK (topic <> '' AND length(topic) <= 200),
  user_id    TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (app_id, topic, user_id)
) STRICT;
CREATE INDEX topic_subscriptions_user_idx ON topic_subscriptions (app_id, user_id, topic);

CREATE TABLE notification_preferences (
  app_id     TEXT NOT NULL,
  user_id    TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  type       TEXT NOT NULL,
  channel    TEXT NOT NULL CHECK (channel IN ('in_app','push','email','sms','chat')),
  enabled    INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (app_id, user_id, type, channel)
) STRICT;

CREATE TABLE notification_settings (
  app_id       TEXT NOT NULL,
  user_id      TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  timezone     TEXT,
  quiet_hours  TEXT CHECK (quiet_hours IS NULL OR json_valid(quiet_hours)),
  paused_until INTEGER,
  digest       TEXT NOT NULL DEFAULT 'instant' CHECK (digest IN ('instant','hourly','daily','weekly')),
  updated_at   INTEGER NOT NULL,
  PRIMARY KEY (app_id, user_id)
) STRICT;

-- Creations for many users, and how far they have come.
CREATE TABLE fanout_jobs (
  id               TEXT NOT NULL PRIMARY KEY,
  app_id           TEXT NOT NULL,
  transaction_id   TEXT NOT NULL CHECK (transaction_id <> '' AND length(transaction_id) <= 255),
  request_hash     TEXT NOT NULL,
  audience         TEXT NOT NULL CHECK (json_valid(audience)),
  template         TEXT NOT NULL CHECK (json_valid(template)),
  status           TEXT NOT NULL CHECK (status IN ('pending','running','done','failed','cancelled')),
  last_user_id     TEXT NOT NULL DEFAULT '',
  created_count    INTEGER NOT NULL DEFAULT 0,
  suppressed_count INTEGER NOT NULL DEFAULT 0,
  error            TEXT,
  locked_until     INTEGER,
  created_at       INTEGER NOT NULL,
  finished_at      INTEGER,
  UNIQUE (app_id, transaction_id)
) STRICT;
CREATE INDEX fanout_jobs_waiting_idx ON fanout_jobs (created_at) WHERE status IN ('pending','running');
CREATE INDEX fanout_jobs_age_idx ON fanout_jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE outbox (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  app_id       TEXT NOT NULL,
  user_id      TEXT NOT NULL,
  rev          INTEGER NOT NULL,
  event        TEXT NOT NULL,
  payload      TEXT NOT NULL CHECK (json_valid(payload)),
  available_at INTEGER NOT NULL,
  locked_until INTEGER,
  created_at   INTEGER NOT NULL,
  delivered_at INTEGER
) STRICT;
CREATE INDEX outbox_undelivered_idx ON outbox (id) WHERE delivered_at IS NULL;
CREATE INDEX outbox_waiting_idx ON outbox (app_id, user_id, id) WHERE delivered_at IS NULL;
CREATE INDEX outbox_delivered_idx ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE UNIQUE INDEX outbox_user_rev_uq ON outbox (app_id, user_id, rev);

CREATE TABLE webhook_events (
  source       TEXT NOT NULL,
  event_id     TEXT NOT NULL,
  type         TEXT NOT NULL,
  received_at  INTEGER NOT NULL,
  PRIMARY KEY (source, event_id)
) STRICT;
CREATE INDEX webhook_events_age_idx ON webhook_events (received_at);
