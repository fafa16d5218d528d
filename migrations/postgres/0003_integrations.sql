-- What users have connected (sections 1.10 and 8.4). Tokens are encrypted, each bound to its row and column.

CREATE TABLE user_integrations (
  id                UUID NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
  app_id            TEXT COLLATE "C" NOT NULL,
  user_id           TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  service           TEXT COLLATE "C" NOT NULL CHECK (service <> ''),
  service_user_id   TEXT COLLATE "C" NOT NULL DEFAULT '',
  access_token_enc  TEXT CHECK (access_token_enc IS NULL OR access_token_enc LIKE 'enc:v1:%'),
  refresh_token_enc TEXT CHECK (refresh_token_enc IS NULL OR refresh_token_enc LIKE 'enc:v1:%'),
  token_expires_at  TIMESTAMPTZ,
  scopes            JSON NOT NULL DEFAULT '[]',
  service_data      JSON,
  is_active         BOOLEAN NOT NULL DEFAULT true,
  last_error        TEXT,
  created_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at        TIMESTAMPTZ NOT NULL DEFAULT now(),
  UNIQUE (app_id, user_id, service, service_user_id)
);
CREATE INDEX user_integrations_user_idx ON user_integrations (user_id);
CREATE INDEX user_integrations_refresh_idx ON user_integrations (token_expires_at)
  WHERE is_active AND refresh_token_enc IS NOT NULL;
CREATE INDEX user_integrations_lookup_idx ON user_integrations (app_id, service, service_user_id);
