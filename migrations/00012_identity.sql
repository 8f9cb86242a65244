-- +goose Up

-- Machines that have a namespace of their own, by what an issuer that is trusted said of them. A row stays when its namespace goes, so that nobody gets another
-- without being told to.
CREATE TABLE machine_identities (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,
  issuer       TEXT    NOT NULL,
  name         TEXT    NOT NULL,                 -- as it was first said
  folded       TEXT    NOT NULL,                 -- in lower case: names that differ by that alone are one
  stable_id    TEXT,                             -- what stays the same when the name goes to somebody else; NULL where the issuer has none
  owner        TEXT    NOT NULL,                 -- in lower case, what comes before the last slash of the name
  owner_id     TEXT,                             -- what stays the same when the owner's name goes to somebody else
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  built_in     INTEGER NOT NULL CHECK (built_in IN (0, 1)), -- of an issuer that the operator had not named
  created_at   INTEGER NOT NULL,
  UNIQUE (issuer, folded)
) STRICT;

CREATE UNIQUE INDEX machine_identities_stable ON machine_identities (issuer, stable_id) WHERE stable_id IS NOT NULL;
CREATE INDEX machine_identities_owner ON machine_identities (issuer, owner);

-- Which repositories are let into a namespace, each to a database of its own. Until the first use the issuer may be open ('': GitHub Actions, or one that the operator
-- has named), and so may be the ids.
CREATE TABLE identity_bindings (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  issuer       TEXT    NOT NULL,
  name         TEXT    NOT NULL,
  folded       TEXT    NOT NULL,
  stable_id    TEXT,
  owner        TEXT    NOT NULL,
  owner_id     TEXT,
  database_id  TEXT,                             -- the repository's; NULL before its first use
  created_at   INTEGER NOT NULL,
  created_by   TEXT    NOT NULL,                 -- id of a token or a user; '' for the operator
  UNIQUE (issuer, folded)
) STRICT;

CREATE INDEX identity_bindings_namespace ON identity_bindings (namespace_id, seq);
CREATE INDEX identity_bindings_owner ON identity_bindings (issuer, owner);

-- By which identity or binding a token was got. Such a token's row goes when its time is over: a job that asks each minute must not fill the file.
ALTER TABLE tokens ADD COLUMN via TEXT;

CREATE INDEX tokens_via ON tokens (expires_at) WHERE via IS NOT NULL;
CREATE INDEX tokens_of_via ON tokens (via) WHERE via IS NOT NULL;

-- Assertions that were used, until they would be refused for their age.
CREATE TABLE used_assertions (
  hash       BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX used_assertions_over ON used_assertions (expires_at);

-- What this server signs with. One key has no end: the one that signs. Those before it are still told of until theirs.
CREATE TABLE signing_keys (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  id         TEXT    NOT NULL UNIQUE,
  public     TEXT    NOT NULL,                   -- a JWK
  private    BLOB    NOT NULL,                   -- sealed
  created_at INTEGER NOT NULL,
  ends_at    INTEGER
) STRICT;

CREATE UNIQUE INDEX signing_keys_current ON signing_keys ((1)) WHERE ends_at IS NULL;

-- +goose Down
DROP TABLE signing_keys;
DROP TABLE used_assertions;
DROP INDEX tokens_of_via;
DROP INDEX tokens_via;
ALTER TABLE tokens DROP COLUMN via;
DROP TABLE identity_bindings;
DROP TABLE machine_identities;
