-- +goose Up

-- Whom other sign-in providers know as which of our users. A user whose password is '' has none, and signs in by these alone.
CREATE TABLE user_identities (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  id        TEXT    NOT NULL UNIQUE,
  user_id   TEXT    NOT NULL REFERENCES users (id),
  issuer    TEXT    NOT NULL,                    -- of OpenID Connect, or where a GitHub is
  subject   TEXT    NOT NULL,                    -- what stays the same there when e-mail address and name change
  name      TEXT    NOT NULL,                    -- what the person was called there when it was linked, for people
  linked_at INTEGER NOT NULL,
  UNIQUE (issuer, subject)
) STRICT;

CREATE INDEX user_identities_user ON user_identities (user_id, seq);

-- Links of the operator's by which somebody sets another password. A user has one at most; it goes when it is used.
CREATE TABLE password_resets (
  user_id    TEXT    NOT NULL PRIMARY KEY REFERENCES users (id),
  hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the link's token, which itself is not kept
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE password_resets;
DROP TABLE user_identities;
