-- Conversations with the support at Crisp, and whose they are (sections 3.3 and 8.3).

CREATE TABLE support_sessions (
  website_id  TEXT COLLATE "C" NOT NULL,
  session_id  TEXT COLLATE "C" NOT NULL,
  user_id     TEXT COLLATE "C" REFERENCES users(id) ON DELETE CASCADE,
  verified    BOOLEAN NOT NULL DEFAULT false,
  state       TEXT,
  changed_at  BIGINT NOT NULL DEFAULT 0, -- by Crisp's clock, in milliseconds: when whose it is has changed last
  told_at     TIMESTAMPTZ, -- when a hook has told last of who the visitor is
  asked_at    TIMESTAMPTZ,
  answered_at TIMESTAMPTZ,
  updated_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
  PRIMARY KEY (website_id, session_id)
);
CREATE INDEX support_sessions_user_idx ON support_sessions (user_id, updated_at) WHERE user_id IS NOT NULL;
CREATE INDEX support_sessions_nobodys_idx ON support_sessions (updated_at) WHERE user_id IS NULL;
