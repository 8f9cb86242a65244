-- +goose Up

-- People who sign in. A row stays when its person is disabled: the audit log and members name it.
CREATE TABLE users (
  seq            INTEGER PRIMARY KEY AUTOINCREMENT,
  id             TEXT    NOT NULL UNIQUE,
  email          TEXT    NOT NULL UNIQUE,        -- folded: in lower case, without white space around it
  name           TEXT    NOT NULL,
  password       TEXT    NOT NULL,               -- argon2id as a PHC string, parameters included
  email_verified INTEGER NOT NULL CHECK (email_verified IN (0, 1)),
  created_at     INTEGER NOT NULL,
  home_at        INTEGER,                        -- when the first sign-in made the person's own namespace
  disabled_at    INTEGER
) STRICT;

-- A row goes when its session ends.
CREATE TABLE sessions (
  hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32), -- SHA-256 of the cookie's value, which itself is not kept
  id         TEXT    NOT NULL UNIQUE,
  user_id    TEXT    NOT NULL REFERENCES users (id),
  address    TEXT    NOT NULL,                   -- where it was signed in from
  created_at INTEGER NOT NULL,
  used_at    INTEGER NOT NULL                    -- written now and then, not with every request
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_user ON sessions (user_id);

CREATE TABLE members (
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  user_id      TEXT    NOT NULL REFERENCES users (id),
  role         TEXT    NOT NULL CHECK (role IN ('viewer', 'editor', 'admin', 'owner')),
  created_at   INTEGER NOT NULL,
  PRIMARY KEY (namespace_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE invitations (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  hash         BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the link's token, which itself is not kept
  role         TEXT    NOT NULL CHECK (role IN ('viewer', 'editor', 'admin', 'owner')),
  email        TEXT,                             -- folded; the only person who may accept it
  invited_by   TEXT REFERENCES users (id),       -- NULL for the operator and the first start
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  ended_at     INTEGER                           -- accepted or revoked
) STRICT;

CREATE INDEX invitations_namespace ON invitations (namespace_id, seq);

-- A deleted namespace keeps its row, which databases in the trash and revoked tokens refer to. Its slug becomes one that none
-- can have, so that the real one is free again; former_slug says what it was.
ALTER TABLE namespaces ADD COLUMN created_by TEXT; -- the id of a user; NULL for the operator and the first start
ALTER TABLE namespaces ADD COLUMN former_slug TEXT;
ALTER TABLE namespaces ADD COLUMN deleted_at INTEGER;

-- +goose Down
DROP TABLE invitations;
DROP TABLE members;
DROP TABLE sessions;
ALTER TABLE namespaces DROP COLUMN deleted_at;
ALTER TABLE namespaces DROP COLUMN former_slug;
ALTER TABLE namespaces DROP COLUMN created_by;
DROP TABLE users;
