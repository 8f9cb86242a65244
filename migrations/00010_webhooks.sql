-- +goose Up

-- Who is told of what happens in a database, by POST.
CREATE TABLE webhooks (
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,
  database_id  TEXT    NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
  name         TEXT    NOT NULL,
  url          TEXT    NOT NULL,
  tables       TEXT,                              -- a JSON array; NULL for all
  events       INTEGER NOT NULL,                  -- a set of bits, see catalog.WebhookEvents
  enabled      INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  secret       BLOB    NOT NULL,                  -- sealed
  former       BLOB,                              -- the secret before, sealed, which signs too until former_until
  former_until INTEGER,
  begun_at     INTEGER NOT NULL,                  -- it is told of what happens since then
  created_at   INTEGER NOT NULL,
  created_by   TEXT    NOT NULL                   -- id of a token or a user
) STRICT;

CREATE INDEX webhooks_database ON webhooks (database_id);

-- How far a webhook has got. It may be a second late: what is told twice has the same id.
CREATE TABLE webhook_progress (
  webhook_id  TEXT    NOT NULL PRIMARY KEY REFERENCES webhooks (id) ON DELETE CASCADE,
  cursor      INTEGER NOT NULL,                   -- the last change of the database that was told
  failures    INTEGER NOT NULL,                   -- attempts since the last that succeeded
  retry_at    INTEGER,                            -- of the next attempt; NULL where nothing has failed
  last_at     INTEGER,                            -- of the last attempt
  last_status INTEGER,                            -- of its answer, an HTTP status; NULL without one
  last_error  TEXT
) STRICT, WITHOUT ROWID;

-- What waits to be told beside changes of rows, which wait in the journal of their database; and what was told, or could not be.
CREATE TABLE webhook_deliveries (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  id          TEXT    NOT NULL,                   -- of the message
  webhook_id  TEXT    NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
  type        TEXT    NOT NULL,
  content     TEXT    NOT NULL,                   -- a JSON object: what the message says beside its id, type, time and database
  at          INTEGER NOT NULL,                   -- when it happened
  state       TEXT    NOT NULL CHECK (state IN ('waiting', 'delivered', 'parked')),
  since       INTEGER NOT NULL,                   -- it waits since then, or again since then
  attempts    INTEGER NOT NULL,
  last_at     INTEGER,
  status      INTEGER,
  error       TEXT,
  duration_ms INTEGER
) STRICT;

CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, state, seq);
CREATE INDEX webhook_deliveries_waiting ON webhook_deliveries (webhook_id) WHERE state = 'waiting';

-- +goose Down
DROP TABLE webhook_deliveries;
DROP TABLE webhook_progress;
DROP TABLE webhooks;
