-- Users' files at a service such as Cloudinary (sections 2.3 and 8.3). One that is deleted stays for a while, so that nothing old brings it back.

CREATE TABLE user_files (
  id              TEXT NOT NULL PRIMARY KEY,
  app_id          TEXT NOT NULL,
  user_id         TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  service         TEXT NOT NULL DEFAULT 'cloudinary',
  service_file_id TEXT NOT NULL,
  asset_id        TEXT,
  resource_type   TEXT NOT NULL DEFAULT 'image' CHECK (resource_type IN ('image','video','raw')),
  delivery_type   TEXT NOT NULL DEFAULT 'upload',
  version         INTEGER NOT NULL DEFAULT 0,
  filename        TEXT NOT NULL,
  file_type       TEXT NOT NULL,
  file_size       INTEGER CHECK (file_size IS NULL OR file_size >= 0),
  file_url        TEXT NOT NULL,
  thumbnail_url   TEXT,
  status          TEXT NOT NULL DEFAULT 'ready' CHECK (status IN ('ready','rejected','deleting','deleted')),
  metadata        TEXT CHECK (metadata IS NULL OR json_valid(metadata)),
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL,
  UNIQUE (app_id, service, resource_type, delivery_type, service_file_id)
) STRICT;
CREATE UNIQUE INDEX user_files_asset_uq ON user_files (app_id, service, asset_id) WHERE asset_id IS NOT NULL;
CREATE INDEX user_files_user_idx ON user_files (app_id, user_id, created_at DESC, id DESC) WHERE status IN ('ready','rejected');
CREATE INDEX user_files_owner_idx ON user_files (user_id);
CREATE INDEX user_files_gone_idx ON user_files (updated_at) WHERE status = 'deleted';
