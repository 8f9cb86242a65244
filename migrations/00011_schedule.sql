-- +goose Up

-- SQL that runs by time. It belongs to the database of an id: in the trash it rests, and it goes with the file.
CREATE TABLE schedules (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  id            TEXT    NOT NULL UNIQUE,
  database_id   TEXT    NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
  name          TEXT    NOT NULL,
  sql           TEXT    NOT NULL,
  interval_ms   INTEGER,                         -- or
  cron          TEXT,                            -- and not both
  enabled       INTEGER NOT NULL CHECK (enabled IN (0, 1)),
  created_at    INTEGER NOT NULL,
  created_by    TEXT    NOT NULL,                -- id of a token, or of a member as user:<id>
  runs_as       TEXT    NOT NULL,                -- the same: who gave it its SQL
  next_run_at   INTEGER,                         -- NULL while it is paused
  running_since INTEGER,                         -- NULL if it doesn't run
  last_run_at   INTEGER,                         -- NULL if it never ran; the rest is of that run
  last_status   TEXT CHECK (last_status IN ('ok', 'failed', 'held', 'interrupted')),
  last_error    TEXT,
  last_duration INTEGER,                         -- in microseconds
  rows_read     INTEGER,
  rows_written  INTEGER,
  UNIQUE (database_id, name),
  CHECK ((interval_ms IS NULL) <> (cron IS NULL))
) STRICT;

CREATE INDEX schedules_running ON schedules (id) WHERE running_since IS NOT NULL;

-- What a schedule may run once more is looked for before each of its runs.
CREATE INDEX approvals_approved ON approvals (requester, database_id) WHERE status = 'approved';

-- +goose Down
DROP INDEX approvals_approved;
DROP TABLE schedules;
