-- +goose Up

-- Row-level security: an expression that the rows of a table must meet. It belongs to the database of an id, whatever an import or a
-- restore does to its content, and goes with it.
CREATE TABLE policies (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  id          TEXT    NOT NULL UNIQUE,
  database_id TEXT    NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
  name        TEXT    NOT NULL,
  table_name  TEXT    NOT NULL,
  expression  TEXT    NOT NULL,
  applies_to  TEXT    NOT NULL,                   -- a JSON array of select, insert, update, delete
  enabled     INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  created_at  INTEGER NOT NULL,
  UNIQUE (database_id, name)
) STRICT;

-- What policies know of who has the token, as a JSON object; NULL is nothing.
ALTER TABLE tokens ADD COLUMN claims TEXT;

-- +goose Down
-- A token with claims must not become one that no policy binds.
DELETE FROM tokens WHERE claims IS NOT NULL;
ALTER TABLE tokens DROP COLUMN claims;
DROP TABLE policies;
