-- Ways to a user besides the inbox (section 8.8), and work that is left to be done outside of the database.

-- Which of them a notification may take, as whoever created it said; NULL means all.
ALTER TABLE user_notifications ADD COLUMN channels JSON;

CREATE TABLE jobs (
  id           UUID NOT NULL PRIMARY KEY,
  kind         TEXT COLLATE "C" NOT NULL,
  dedupe_key   TEXT COLLATE "C" NOT NULL,
  user_id      TEXT COLLATE "C",
  payload      TEXT NOT NULL,
  attempts     BIGINT NOT NULL DEFAULT 0,
  available_at TIMESTAMPTZ NOT NULL,
  locked_until TIMESTAMPTZ,
  last_error   TEXT,
  created_at   TIMESTAMPTZ NOT NULL,
  done_at      TIMESTAMPTZ,
  UNIQUE (kind, dedupe_key)
);
CREATE INDEX jobs_due_idx ON jobs (kind, available_at, user_id, id) WHERE done_at IS NULL;
CREATE INDEX jobs_user_idx ON jobs (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX jobs_done_idx ON jobs (done_at) WHERE done_at IS NOT NULL;
