-- +goose Up

-- Who changed what, and when: only added to, and kept for good. It references nothing: it outlives what it tells of.
CREATE TABLE audit (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,
  at           INTEGER NOT NULL,
  namespace_id TEXT    NOT NULL,
  action       TEXT    NOT NULL,                 -- for example database.created
  actor_type   TEXT    NOT NULL,                 -- token, operator or server
  actor_id     TEXT,                             -- of a token, its id
  address      TEXT,                             -- where the request came from
  target_type  TEXT    NOT NULL,
  target_id    TEXT    NOT NULL,
  target_name  TEXT    NOT NULL,                 -- a slug, or the name of a token
  test         INTEGER NOT NULL CHECK (test IN (0, 1)), -- the target is a test database or a test token
  metadata     TEXT    NOT NULL                  -- a JSON object
) STRICT;

CREATE INDEX audit_namespace ON audit (namespace_id, seq);
CREATE INDEX audit_action ON audit (namespace_id, action, seq);

-- +goose StatementBegin
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
-- +goose StatementEnd

-- +goose Down
DROP TABLE audit;
