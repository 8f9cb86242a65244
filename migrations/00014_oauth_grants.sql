-- +goose Up

-- What people have connected: one row for each user and client. It stays when the app is disconnected, so that it gets the same database when it is connected again.
CREATE TABLE oauth_grants (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  id          TEXT    NOT NULL UNIQUE,
  user_id     TEXT    NOT NULL REFERENCES users (id),
  client_id   TEXT    NOT NULL,                  -- of oauth_clients, or the URL of a metadata document
  name        TEXT    NOT NULL,                  -- the app's, as it was when the user agreed
  scopes      TEXT    NOT NULL,                  -- agreed to, with spaces between them
  database_id TEXT,                              -- that the app has in the user's namespace; NULL for none
  created_at  INTEGER NOT NULL,
  ended_at    INTEGER,                           -- disconnected; NULL while it isn't
  UNIQUE (user_id, client_id)
) STRICT;

-- Authorization codes. A used one stays for a while, so that its second use is known for what it is.
CREATE TABLE oauth_codes (
  hash         BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32), -- SHA-256 of the code, which itself is not kept
  family_id    TEXT    NOT NULL,                 -- of what it gets
  grant_id     TEXT    NOT NULL REFERENCES oauth_grants (id),
  redirect_uri TEXT    NOT NULL,
  challenge    TEXT    NOT NULL,                 -- S256; '' for none
  nonce        TEXT    NOT NULL,
  scopes       TEXT    NOT NULL,
  resource     TEXT    NOT NULL,                 -- that its token is bound to; '' for the API
  namespace_id TEXT,                             -- that its token is for; NULL where it opens no database
  role         TEXT    NOT NULL,                 -- there
  auth_at      INTEGER NOT NULL,                 -- when the user signed in
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  used_at      INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX oauth_codes_over ON oauth_codes (created_at);
CREATE INDEX oauth_codes_grant ON oauth_codes (grant_id);

-- What one code got, with all that came of it by refreshing: it ends as one.
CREATE TABLE oauth_families (
  seq             INTEGER PRIMARY KEY AUTOINCREMENT,
  id              TEXT    NOT NULL UNIQUE,
  grant_id        TEXT    NOT NULL REFERENCES oauth_grants (id),
  scopes          TEXT    NOT NULL,
  resource        TEXT    NOT NULL,
  namespace_id    TEXT,
  role            TEXT    NOT NULL,
  auth_at         INTEGER NOT NULL,
  created_at      INTEGER NOT NULL,
  refresh         BLOB CHECK (length(refresh) = 32), -- SHA-256 of the refresh token that is good now; NULL for none
  refresh_ends_at INTEGER
) STRICT;

CREATE INDEX oauth_families_grant ON oauth_families (grant_id, seq);

-- Access tokens that read /userinfo. Those that open databases are in tokens, got by (via) their family.
CREATE TABLE oauth_access (
  hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  family_id  TEXT    NOT NULL REFERENCES oauth_families (id),
  scopes     TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX oauth_access_family ON oauth_access (family_id);

-- Of a token that an app got: which app's it is, what it is bound to, what was agreed to, and the namespace that is charged for it (NULL: the token's own). The last is
-- looked up for as long as a database may tell of what the token wrote, so that the row of a token with one stays.
ALTER TABLE tokens ADD COLUMN client_id TEXT;
ALTER TABLE tokens ADD COLUMN resource TEXT;
ALTER TABLE tokens ADD COLUMN scopes TEXT;
ALTER TABLE tokens ADD COLUMN payer TEXT;

CREATE INDEX tokens_client ON tokens (client_id) WHERE client_id IS NOT NULL;
CREATE INDEX tokens_payer ON tokens (payer) WHERE payer IS NOT NULL;

-- +goose Down
DROP INDEX tokens_payer;
DROP INDEX tokens_client;
ALTER TABLE tokens DROP COLUMN payer;
ALTER TABLE tokens DROP COLUMN scopes;
ALTER TABLE tokens DROP COLUMN resource;
ALTER TABLE tokens DROP COLUMN client_id;
DROP TABLE oauth_access;
DROP TABLE oauth_families;
DROP TABLE oauth_codes;
DROP TABLE oauth_grants;
