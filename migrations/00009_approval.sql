-- +goose Up

-- Which writes a person looks at first. A rule belongs to the database of an id, as a policy does.
CREATE TABLE approval_rules (
  seq               INTEGER PRIMARY KEY AUTOINCREMENT,
  id                TEXT    NOT NULL UNIQUE,
  database_id       TEXT    NOT NULL REFERENCES databases (id) ON DELETE CASCADE,
  table_glob        TEXT    NOT NULL,
  action            TEXT    NOT NULL CHECK (action IN ('deny', 'require_approval')),
  operations        INTEGER NOT NULL,             -- a set of bits: 1 insert, 2 update, 4 delete, 8 ddl
  max_rows          INTEGER NOT NULL,             -- -1 for none
  note              TEXT    NOT NULL,
  locked            INTEGER NOT NULL CHECK (locked IN (0, 1)),
  by_member         INTEGER NOT NULL CHECK (by_member IN (0, 1)),
  approvers         INTEGER NOT NULL,
  approver_role     TEXT    NOT NULL,
  exclude_requester INTEGER NOT NULL CHECK (exclude_requester IN (0, 1)),
  created_at        INTEGER NOT NULL,
  created_by        TEXT    NOT NULL              -- id of a token or a user
) STRICT;

CREATE INDEX approval_rules_database ON approval_rules (database_id);

-- A write that waits for people, or waited. What would run is gone when it is over; the audit log keeps the SQL.
CREATE TABLE approvals (
  seq            INTEGER PRIMARY KEY AUTOINCREMENT,
  id             TEXT    NOT NULL UNIQUE,
  hash           BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the token
  sealed         BLOB,                            -- the token, for who asks again; NULL when it is decided
  fingerprint    BLOB    NOT NULL CHECK (length(fingerprint) = 32), -- SHA-256 of what is asked
  namespace_id   TEXT    NOT NULL,
  database_id    TEXT    NOT NULL,
  requester      TEXT    NOT NULL,                -- id of a token, or of a member as user:<id>
  requester_name TEXT    NOT NULL,
  owner          TEXT,                            -- id of the user who made that token, or is that member
  kind           TEXT    NOT NULL,                -- the call: query, batch, restore, …
  request        BLOB,                            -- what the call runs with; NULL when it is over
  content        TEXT,                            -- what is shown of it, a JSON object; NULL when it is over
  hits           TEXT    NOT NULL,                -- a JSON array
  schema_mark    INTEGER NOT NULL,                -- of the schema that the write was asked for on
  counts         TEXT,                            -- a JSON array: the rows that it would have changed when it was approved; NULL where nobody knows
  approvers      INTEGER NOT NULL,
  approver_role  TEXT    NOT NULL,
  exclude_requester INTEGER NOT NULL CHECK (exclude_requester IN (0, 1)),
  test           INTEGER NOT NULL CHECK (test IN (0, 1)),
  status         TEXT    NOT NULL CHECK (status IN ('pending', 'approved', 'denied', 'expired', 'redeemed')),
  requested_at   INTEGER NOT NULL,
  expires_at     INTEGER NOT NULL,
  decided_at     INTEGER,
  redeemed_at    INTEGER
) STRICT;

CREATE INDEX approvals_pending ON approvals (requester, database_id) WHERE status = 'pending';
CREATE INDEX approvals_waiting ON approvals (database_id) WHERE status = 'pending';
CREATE INDEX approvals_database ON approvals (database_id, seq);
CREATE INDEX approvals_expired ON approvals (expires_at);

CREATE TABLE approval_votes (
  approval_id TEXT    NOT NULL REFERENCES approvals (id) ON DELETE CASCADE,
  user_id     TEXT    NOT NULL,
  approve     INTEGER NOT NULL CHECK (approve IN (0, 1)),
  reason      TEXT    NOT NULL,
  at          INTEGER NOT NULL,
  PRIMARY KEY (approval_id, user_id)
) STRICT, WITHOUT ROWID;

-- A statement that was looked at and may be run once, by the same bearer.
CREATE TABLE proposals (
  hash           BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32), -- SHA-256 of the token, which itself is not kept
  id             TEXT    NOT NULL UNIQUE,
  namespace_id   TEXT    NOT NULL,
  database_id    TEXT    NOT NULL,
  requester      TEXT    NOT NULL,
  request        BLOB    NOT NULL,                -- a query's body
  schema_version INTEGER NOT NULL,
  estimate       INTEGER,                         -- rows; NULL where nobody knows
  estimated_by   TEXT    NOT NULL CHECK (estimated_by IN ('exact', 'counted', 'none')),
  created_at     INTEGER NOT NULL,
  expires_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX proposals_expired ON proposals (expires_at);
CREATE INDEX proposals_requester ON proposals (requester);

-- The user who made the token, or made the one that made it; NULL where nobody is known to.
ALTER TABLE tokens ADD COLUMN owner TEXT;
ALTER TABLE handoffs ADD COLUMN owner TEXT;
UPDATE tokens SET owner = (SELECT actor_id FROM audit WHERE action = 'token.created' AND actor_type = 'user' AND target_id = tokens.id);

-- +goose Down
-- A database must not lose what guards it without somebody saying so: take the rules away first.
CREATE TABLE rules_are_there (n INTEGER CHECK (n = 0)) STRICT;
INSERT INTO rules_are_there SELECT count(*) FROM approval_rules;
DROP TABLE rules_are_there;
ALTER TABLE handoffs DROP COLUMN owner;
ALTER TABLE tokens DROP COLUMN owner;
DROP TABLE proposals;
DROP TABLE approval_votes;
DROP TABLE approvals;
DROP TABLE approval_rules;
