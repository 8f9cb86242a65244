-- +goose Up

-- A namespace owns databases and tokens.
CREATE TABLE namespaces (
  id         TEXT    NOT NULL PRIMARY KEY,
  slug       TEXT    NOT NULL UNIQUE,
  created_at INTEGER NOT NULL                    -- Unix milliseconds, as every time here
) STRICT;

-- seq is the order of creation, which a clock that is set back can't disturb.
CREATE TABLE databases (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,          -- opaque, also the name of the file; never used twice
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  slug         TEXT    NOT NULL,
  name         TEXT    NOT NULL,
  region       TEXT    NOT NULL,
  status       TEXT    NOT NULL,
  test         INTEGER NOT NULL CHECK (test IN (0, 1)), -- made by a test token
  created_at   INTEGER NOT NULL,
  deleted_at   INTEGER                           -- set until its files are gone, then the row goes
) STRICT;

CREATE UNIQUE INDEX databases_slug ON databases (namespace_id, slug) WHERE deleted_at IS NULL;
CREATE INDEX databases_deleted ON databases (deleted_at) WHERE deleted_at IS NOT NULL;

-- Slugs of databases that ended: such a slug makes no new database by being used, only by being asked for.
CREATE TABLE ended_slugs (
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  slug         TEXT    NOT NULL,
  ended_at     INTEGER NOT NULL,
  PRIMARY KEY (namespace_id, slug)
) STRICT, WITHOUT ROWID;

-- database_id is a pin. It references nothing: a pinned token outlives its database and then opens nothing.
CREATE TABLE tokens (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  name         TEXT    NOT NULL,
  hint         TEXT    NOT NULL,                 -- psql_live_xxxx…yyyy
  hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the token, which itself is not kept
  role         TEXT    NOT NULL,                 -- the word that was given
  test         INTEGER NOT NULL CHECK (test IN (0, 1)),
  database_id  TEXT,
  expires_at   INTEGER,
  created_at   INTEGER NOT NULL,
  revoked_at   INTEGER
) STRICT;

CREATE INDEX tokens_namespace ON tokens (namespace_id);

-- What the server itself remembers from one start to the next.
CREATE TABLE settings (
  key   TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE settings;
DROP TABLE tokens;
DROP TABLE ended_slugs;
DROP TABLE databases;
DROP TABLE namespaces;
