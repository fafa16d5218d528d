-- Ways to a user besides the inbox (section 8.8), and work that is left to be done outside of the database.

-- Which of them a notification may take, as whoever created it said; NULL means all.
ALTER TABLE user_notifications ADD COLUMN channels TEXT CHECK (channels IS NULL OR json_valid(channels));

CREATE TABLE jobs (
  id           TEXT NOT NULL PRIMARY KEY,
  kind         TEXT NOT NULL,
  dedupe_key   TEXT NOT NULL,
  user_id      TEXT,
  payload      TEXT NOT NULL CHECK (json_valid(payload)),
  attempts     INTEGER NOT NULL DEFAULT 0,
  available_at INTEGER NOT NULL,
  locked_until INTEGER,
  last_error   TEXT,
  created_at   INTEGER NOT NULL,
  done_at      INTEGER,
  UNIQUE (kind, dedupe_key)
) STRICT;
CREATE INDEX jobs_due_idx ON jobs (kind, available_at, user_id, id) WHERE done_at IS NULL;
CREATE INDEX jobs_user_idx ON jobs (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX jobs_done_idx ON jobs (done_at) WHERE done_at IS NOT NULL;
