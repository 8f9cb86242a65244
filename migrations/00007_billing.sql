-- +goose Up

-- Prices that hold together. What was counted keeps its series, so that another price, or a restored machine, never changes what was. Nano-dollars.
CREATE TABLE series (
  id            INTEGER PRIMARY KEY,
  request       INTEGER NOT NULL,
  row_read      INTEGER NOT NULL,
  row_written   INTEGER NOT NULL,
  began_at      INTEGER NOT NULL
) STRICT;

-- What was counted, by day (of 1970-01-01, UTC), database and token. database_id is '' for calls that concern none.
CREATE TABLE usage (
  namespace_id  TEXT    NOT NULL,
  database_id   TEXT    NOT NULL,
  day           INTEGER NOT NULL,
  token_id      TEXT    NOT NULL,
  series        INTEGER NOT NULL,
  free          INTEGER NOT NULL CHECK (free IN (0, 1)),
  -- The database's file has counted these with its writes: its running totals, as they were last told. Told again they change nothing.
  filed_requests INTEGER NOT NULL DEFAULT 0,
  filed_read     INTEGER NOT NULL DEFAULT 0,
  filed_written  INTEGER NOT NULL DEFAULT 0,
  -- The rest, which was added up in memory.
  requests       INTEGER NOT NULL DEFAULT 0,
  rows_read      INTEGER NOT NULL DEFAULT 0,
  rows_written   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (namespace_id, day, database_id, token_id, series, free)
) STRICT, WITHOUT ROWID;

-- The same without the databases, for sums over many of them.
CREATE TABLE usage_days (
  namespace_id  TEXT    NOT NULL,
  day           INTEGER NOT NULL,
  token_id      TEXT    NOT NULL,
  series        INTEGER NOT NULL,
  free          INTEGER NOT NULL,
  requests      INTEGER NOT NULL,
  rows_read     INTEGER NOT NULL,
  rows_written  INTEGER NOT NULL,
  PRIMARY KEY (namespace_id, day, token_id, series, free)
) STRICT, WITHOUT ROWID;

-- The same by month (of the year 0) and without the tokens, for spans of time over many databases.
CREATE TABLE usage_months (
  namespace_id  TEXT    NOT NULL,
  month         INTEGER NOT NULL,
  database_id   TEXT    NOT NULL,
  series        INTEGER NOT NULL,
  free          INTEGER NOT NULL,
  requests      INTEGER NOT NULL,
  rows_read     INTEGER NOT NULL,
  rows_written  INTEGER NOT NULL,
  PRIMARY KEY (namespace_id, month, database_id, series, free)
) STRICT, WITHOUT ROWID;

-- A sample a day and database.
CREATE TABLE storage (
  namespace_id  TEXT    NOT NULL,
  day           INTEGER NOT NULL,
  database_id   TEXT    NOT NULL,
  bytes         INTEGER NOT NULL,
  nanos         INTEGER NOT NULL,
  PRIMARY KEY (namespace_id, day, database_id)
) STRICT, WITHOUT ROWID;

-- The last sample of a month, and what all of them cost. modified is what the files were then, so that a database that nobody wrote to since isn't opened for
-- the next.
CREATE TABLE storage_months (
  namespace_id  TEXT    NOT NULL,
  month         INTEGER NOT NULL,
  database_id   TEXT    NOT NULL,
  day           INTEGER NOT NULL,
  bytes         INTEGER NOT NULL,
  nanos         INTEGER NOT NULL,
  modified      INTEGER NOT NULL,
  PRIMARY KEY (namespace_id, month, database_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE storage_days (
  namespace_id  TEXT    NOT NULL,
  day           INTEGER NOT NULL,
  bytes         INTEGER NOT NULL,
  nanos         INTEGER NOT NULL,
  PRIMARY KEY (namespace_id, day)
) STRICT, WITHOUT ROWID;

-- What is charged for a day, and how much of it the ledger has. Only where a balance is kept.
CREATE TABLE charges (
  namespace_id  TEXT    NOT NULL,
  day           INTEGER NOT NULL,
  nanos         INTEGER NOT NULL,
  debited       INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (namespace_id, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX charges_open ON charges (namespace_id, day) WHERE nanos <> debited;

-- Money in (positive) and out. A row is never changed: what is wrong is put right by another.
CREATE TABLE ledger (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  id            TEXT    NOT NULL UNIQUE,
  namespace_id  TEXT    NOT NULL REFERENCES namespaces (id),
  at            INTEGER NOT NULL,
  kind          TEXT    NOT NULL CHECK (kind IN ('welcome', 'credit', 'checkout', 'debit')),
  day           INTEGER,                          -- of a debit
  nanos         INTEGER NOT NULL,
  note          TEXT    NOT NULL,
  ref           TEXT    UNIQUE                    -- what it is for, where that must count once
) STRICT;

CREATE INDEX ledger_namespace ON ledger (namespace_id, seq);

-- +goose StatementBegin
CREATE TRIGGER ledger_stands BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER ledger_stays BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
-- +goose StatementEnd

CREATE TABLE caps (
  namespace_id  TEXT    NOT NULL REFERENCES namespaces (id),
  scope         TEXT    NOT NULL CHECK (scope IN ('namespace', 'database', 'token')),
  target_id     TEXT    NOT NULL,                 -- '' for the namespace
  span          TEXT    NOT NULL CHECK (span IN ('day', 'month')),
  nanos         INTEGER NOT NULL CHECK (nanos >= 0),
  PRIMARY KEY (namespace_id, scope, target_id, span)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE caps;
DROP TABLE ledger;
DROP TABLE charges;
DROP TABLE storage_days;
DROP TABLE storage_months;
DROP TABLE storage;
DROP TABLE usage_days;
DROP TABLE usage_months;
DROP TABLE usage;
DROP TABLE series;
