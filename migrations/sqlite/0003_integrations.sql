-- What users have connected (sections 1.10 and 8.4). Tokens are encrypted, each bound to its row and column.

CREATE TABLE user_integrations (
  id                TEXT NOT NULL PRIMARY KEY,
  app_id            TEXT NOT NULL,
  user_id           TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  service           TEXT NOT NULL CHECK (service <> ''),
  service_user_id   TEXT NOT NULL DEFAULT '',
  access_token_enc  TEXT CHECK (access_token_enc IS NULL OR access_token_enc LIKE 'enc:v1:%'),
  refresh_token_enc TEXT CHECK (refresh_token_enc IS NULL OR refresh_token_enc LIKE 'enc:v1:%'),
  token_expires_at  INTEGER,
  scopes            TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(scopes)),
  service_data      TEXT CHECK (service_data IS NULL OR json_valid(service_data)),
  is_active         INTEGER NOT NULL DEFAULT 1,
  last_error        TEXT,
  created_at        INTEGER NOT NULL,
  updated_at        INTEGER NOT NULL,
  UNIQUE (app_id, user_id, service, service_user_id)
) STRICT;
CREATE INDEX user_integrations_user_idx ON user_integrations (user_id);
CREATE INDEX user_integrations_refresh_idx ON user_integrations (token_expires_at)
  WHERE is_active AND refresh_token_enc IS NOT NULL;
CREATE INDEX user_integrations_lookup_idx ON user_integrations (app_id, service, service_user_id);
