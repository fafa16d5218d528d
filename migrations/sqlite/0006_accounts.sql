-- When tokens of other services are refreshed, and by whom (section 8.4): due at refresh_at, and in one node's hands until refresh_locked_until.

ALTER TABLE user_integrations ADD COLUMN refresh_at INTEGER;
ALTER TABLE user_integrations ADD COLUMN refresh_locked_until INTEGER;
ALTER TABLE user_integrations ADD COLUMN refresh_attempts INTEGER NOT NULL DEFAULT 0;
UPDATE user_integrations SET refresh_at = token_expires_at WHERE refresh_token_enc IS NOT NULL;
DROP INDEX user_integrations_refresh_idx;
CREATE INDEX user_integrations_due_idx ON user_integrations (refresh_at) WHERE is_active AND refresh_at IS NOT NULL;
CREATE INDEX user_integrations_expiry_idx ON user_integrations (token_expires_at) WHERE is_active AND token_expires_at IS NOT NULL;
