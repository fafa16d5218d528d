-- Users, their notifications, and what is still to be told (section 8.3). Ids are compared by their bytes, wherever the database was made;
-- JSON that only passes through is kept as it was written.

CREATE TABLE store (
  id UUID NOT NULL PRIMARY KEY
);

CREATE TABLE users (
  id                TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (id <> '' AND length(id) <= 255),
  email             TEXT,
  name              TEXT,
  image_url         TEXT,
  locale            TEXT,
  timezone          TEXT,
  public_metadata   JSON NOT NULL DEFAULT '{}',
  banned            BOOLEAN NOT NULL DEFAULT false,
  source_updated_at BIGINT NOT NULL DEFAULT 0,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at        TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX users_email_idx ON users (lower(email));

-- Whoever was deleted does not come back by late news.
CREATE TABLE user_tombstones (
  id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  deleted_at TIMESTAMPTZ NOT NULL
);

-- Who is not served any more, and since when.
CREATE TABLE ended_users (
  user_id  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  ended_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX ended_users_age_idx ON ended_users (ended_at);
CREATE TABLE ended_sessions (
  session_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  user_id    TEXT COLLATE "C",
  ended_at   TIMESTAMPTZ NOT NULL
);
CREATE INDEX ended_sessions_age_idx ON ended_sessions (ended_at);

CREATE TABLE org_members (
  org_id            TEXT COLLATE "C" NOT NULL,
  user_id           TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  role              TEXT NOT NULL,
  source_updated_at BIGINT NOT NULL DEFAULT 0,
  deleted_at        TIMESTAMPTZ,
  PRIMARY KEY (org_id, user_id)
);
CREATE INDEX org_members_user_idx ON org_members (user_id);
CREATE INDEX org_members_left_idx ON org_members (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE inbox_state (
  app_id     TEXT COLLATE "C" NOT NULL,
  user_id    TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  rev        BIGINT NOT NULL DEFAULT 0,
  purged_rev BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (app_id, user_id)
);

CREATE TABLE user_notifications (
  id             UUID NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
  app_id         TEXT COLLATE "C" NOT NULL DEFAULT 'default',
  user_id        TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  org_id         TEXT,
  type           TEXT COLLATE "C" NOT NULL CHECK (type <> '' AND length(type) <= 200),
  severity       TEXT NOT NULL DEFAULT 'normal' CHECK (severity IN ('low','normal','high','critical')),
  title          TEXT NOT NULL,
  message        TEXT,
  action_url     TEXT,
  image_url      TEXT,
  actor          JSON,
  object         JSON,
  data           JSON,
  transaction_id TEXT COLLATE "C",
  group_key      TEXT COLLATE "C",
  group_count    BIGINT NOT NULL DEFAULT 1 CHECK (group_count >= 1),
  rev            BIGINT,
  visible_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
  announced_at   TIMESTAMPTZ,
  seen_at        TIMESTAMPTZ,
  read_at        TIMESTAMPTZ,
  archived_at    TIMESTAMPTZ,
  snoozed_until  TIMESTAMPTZ,
  expires_at     TIMESTAMPTZ,
  deleted_at     TIMESTAMPTZ,
  created_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at     TIMESTAMPTZ NOT NULL DEFAULT now(),
  CHECK (read_at IS NULL OR seen_at IS NOT NULL),
  CHECK (snoozed_until IS NULL OR visible_at = snoozed_until)
);
CREATE INDEX un_transaction_idx ON user_notifications (app_id, transaction_id) WHERE transaction_id IS NOT NULL;
CREATE UNIQUE INDEX un_open_group_uq ON user_notifications (app_id, user_id, group_key)
  WHERE group_key IS NOT NULL AND read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL;
CREATE INDEX un_inbox_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC)
  WHERE archived_at IS NULL AND deleted_at IS NULL;
CREATE INDEX un_unread_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC)
  WHERE read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL;
-- Who has seen all of many unread ones would have all of them looked at to count none.
CREATE INDEX un_unseen_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC)
  WHERE seen_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL;
CREATE INDEX un_archived_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC)
  WHERE archived_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX un_all_idx ON user_notifications (app_id, user_id, visible_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX un_changes_idx ON user_notifications (app_id, user_id, rev, id);
CREATE INDEX un_due_idx ON user_notifications (visible_at) WHERE announced_at IS NULL AND deleted_at IS NULL;
CREATE INDEX un_expiry_idx ON user_notifications (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX un_deleted_idx ON user_notifications (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TABLE notification_dedupe (
  app_id          TEXT COLLATE "C" NOT NULL,
  user_id         TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  transaction_id  TEXT COLLATE "C" NOT NULL CHECK (transaction_id <> '' AND length(transaction_id) <= 255),
  request_hash    TEXT NOT NULL,
  notification_id UUID,
  created_at      TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (app_id, user_id, transaction_id)
);
CREATE INDEX notification_dedupe_age_idx ON notification_dedupe (created_at);

CREATE TABLE topic_subscriptions (
  app_id     TEXT COLLATE "C" NOT NULL,
  topic      TEXT COLLATE "C" NOT NULL CHECK (topic <> '' AND length(topic) <= 200),
  user_id    TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  created_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (app_id, topic, user_id)
);
CREATE INDEX topic_subscriptions_user_idx ON topic_subscriptions (app_id, user_id, topic);

CREATE TABLE notification_preferences (
  app_id     TEXT COLLATE "C" NOT NULL,
  user_id    TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  type       TEXT COLLATE "C" NOT NULL,
  channel    TEXT COLLATE "C" NOT NULL CHECK (channel IN ('in_app','push','email','sms','chat')),
  enabled    BOOLEAN NOT NULL,
  updated_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (app_id, user_id, type, channel)
);

CREATE TABLE notification_settings (
  app_id       TEXT COLLATE "C" NOT NULL,
  user_id      TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  timezone     TEXT,
  quiet_hours  JSON,
  paused_until TIMESTAMPTZ,
  digest       TEXT NOT NULL DEFAULT 'instant' CHECK (digest IN ('instant','hourly','daily','weekly')),
  updated_at   TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (app_id, user_id)
);

-- Creations for many users, and how far they have come.
CREATE TABLE fanout_jobs (
  id               UUID NOT NULL PRIMARY KEY,
  app_id           TEXT COLLATE "C" NOT NULL,
  transaction_id   TEXT COLLATE "C" NOT NULL CHECK (transaction_id <> '' AND length(transaction_id) <= 255),
  request_hash     TEXT NOT NULL,
  audience         TEXT NOT NULL,
  template         TEXT NOT NULL,
  status           TEXT NOT NULL CHECK (status IN ('pending','running','done','failed','cancelled')),
  last_user_id     TEXT COLLATE "C" NOT NULL DEFAULT '',
  created_count    BIGINT NOT NULL DEFAULT 0,
  suppressed_count BIGINT NOT NULL DEFAULT 0,
  error            TEXT,
  locked_until     TIMESTAMPTZ,
  created_at       TIMESTAMPTZ NOT NULL,
  finished_at      TIMESTAMPTZ,
  UNIQUE (app_id, transaction_id)
);
CREATE INDEX fanout_jobs_waiting_idx ON fanout_jobs (created_at) WHERE status IN ('pending','running');
CREATE INDEX fanout_jobs_age_idx ON fanout_jobs (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE outbox (
  id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  app_id       TEXT COLLATE "C" NOT NULL,
  user_id      TEXT COLLATE "C" NOT NULL,
  rev          BIGINT NOT NULL,
  event        TEXT NOT NULL,
  payload      TEXT NOT NULL,
  available_at TIMESTAMPTZ NOT NULL,
  locked_until TIMESTAMPTZ,
  created_at   TIMESTAMPTZ NOT NULL,
  delivered_at TIMESTAMPTZ
);
CREATE INDEX outbox_undelivered_idx ON outbox (id) WHERE delivered_at IS NULL;
CREATE INDEX outbox_waiting_idx ON outbox (app_id, user_id, id) WHERE delivered_at IS NULL;
CREATE INDEX outbox_delivered_idx ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE INDEX outbox_user_idx ON outbox (user_id);
CREATE UNIQUE INDEX outbox_user_rev_uq ON outbox (app_id, user_id, rev);

CREATE TABLE webhook_events (
  source      TEXT NOT NULL,
  event_id    TEXT NOT NULL,
  type        TEXT NOT NULL,
  received_at TIMESTAMPTZ NOT NULL,
  PRIMARY KEY (source, event_id)
);
CREATE INDEX webhook_events_age_idx ON webhook_events (received_at);
