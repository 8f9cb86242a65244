-- +goose Up

-- What a branch or fork was made of, and how: NULL for any other database. A branch has a ref, which is its parent's; a fork has none.
ALTER TABLE databases ADD COLUMN forked_from TEXT;
ALTER TABLE databases ADD COLUMN branch_ref TEXT;
ALTER TABLE databases ADD COLUMN content TEXT CHECK (content IN ('schema', 'full'));
ALTER TABLE databases ADD COLUMN forked_at INTEGER;
-- When it ends by itself; NULL for never.
ALTER TABLE databases ADD COLUMN expires_at INTEGER;

CREATE UNIQUE INDEX databases_branch ON databases (forked_from, branch_ref) WHERE branch_ref IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX tokens_database ON tokens (database_id) WHERE database_id IS NOT NULL AND revoked_at IS NULL;

-- A handoff is changed into a token of its database, once.
CREATE TABLE handoffs (
  hash         BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32), -- SHA-256 of the text, which itself is not kept
  id           TEXT    NOT NULL UNIQUE,
  namespace_id TEXT    NOT NULL REFERENCES namespaces (id),
  database_id  TEXT    NOT NULL,
  role         TEXT    NOT NULL,
  test         INTEGER NOT NULL CHECK (test IN (0, 1)),
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX handoffs_expired ON handoffs (expires_at);

-- +goose Down
DROP TABLE handoffs;
DROP INDEX tokens_database;
DROP INDEX databases_branch;
ALTER TABLE databases DROP COLUMN expires_at;
ALTER TABLE databases DROP COLUMN forked_at;
ALTER TABLE databases DROP COLUMN content;
ALTER TABLE databases DROP COLUMN branch_ref;
ALTER TABLE databases DROP COLUMN forked_from;
