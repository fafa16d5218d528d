-- Users' files at a service such as Cloudinary (sections 2.3 and 8.3). One that is deleted stays for a while, so that nothing old brings it back.

CREATE TABLE user_files (
  id              UUID NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
  app_id          TEXT COLLATE "C" NOT NULL,
  user_id         TEXT COLLATE "C" NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  service         TEXT COLLATE "C" NOT NULL DEFAULT 'cloudinary',
  service_file_id TEXT COLLATE "C" NOT NULL,
  asset_id        TEXT COLLATE "C",
  resource_type   TEXT COLLATE "C" NOT NULL DEFAULT 'image' CHECK (resource_type IN ('image','video','raw')),
  delivery_type   TEXT COLLATE "C" NOT NULL DEFAULT 'upload',
  version         BIGINT NOT NULL DEFAULT 0,
  filename        TEXT NOT NULL,
  file_type       TEXT NOT NULL,
  file_size       BIGINT CHECK (file_size IS NULL OR file_size >= 0),
  file_url        TEXT NOT NULL,
  thumbnail_url   TEXT,
  status          TEXT NOT NULL DEFAULT 'ready' CHECK (status IN ('ready','rejected','deleting','deleted')),
  metadata        JSON,
  created_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
  updated_at      TIMESTAMPTZ NOT NULL DEFAULT now(),
  UNIQUE (app_id, service, resource_type, delivery_type, service_file_id)
);
CREATE UNIQUE INDEX user_files_asset_uq ON user_files (app_id, service, asset_id) WHERE asset_id IS NOT NULL;
CREATE INDEX user_files_user_idx ON user_files (app_id, user_id, created_at DESC, id DESC) WHERE status IN ('ready','rejected');
CREATE INDEX user_files_owner_idx ON user_files (user_id);
CREATE INDEX user_files_gone_idx ON user_files (updated_at) WHERE status = 'deleted';
