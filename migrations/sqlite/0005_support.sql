-- Conversations with the support at Crisp, and whose they are (sections 3.3 and 8.3).

CREATE TABLE support_sessions (
  website_id  TEXT NOT NULL,
  session_id  TEXT NOT NULL,
  user_id     TEXT REFERENCES users(id) ON DELETE CASCADE,
  verified    INTEGER NOT NULL DEFAULT 0,
  state       TEXT,
  changed_at  INTEGER NOT NULL DEFAULT 0, -- by Crisp's clock, in milliseconds: when whose it is has changed last
  told_at     INTEGER, -- when a hook has told last of who the visitor is
  asked_at    INTEGER,
  answered_at INTEGER,
  updated_at  INTEGER NOT NULL,
  PRIMARY KEY (website_id, session_id)
) STRICT;
CREATE INDEX support_sessions_user_idx ON support_sessions (user_id, updated_at) WHERE user_id IS NOT NULL;
CREATE INDEX support_sessions_nobodys_idx ON support_sessions (updated_at) WHERE user_id IS NULL;
