-- +goose Up

-- Programs that send people here to sign in: the apps of namespaces, and those that registered themselves (RFC 7591). A client that is a metadata document at an
-- address of its own has no row.
CREATE TABLE oauth_clients (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,
  id            TEXT    NOT NULL UNIQUE,          -- the client_id
  namespace_id  TEXT    REFERENCES namespaces (id), -- whose app it is; NULL for one that registered itself
  name          TEXT    NOT NULL,
  public        INTEGER NOT NULL CHECK (public IN (0, 1)), -- it has no secret
  redirect_uris TEXT    NOT NULL,                 -- a JSON array
  scopes        TEXT,                             -- a JSON array of what it may ask for; NULL for all
  require_pkce  INTEGER NOT NULL CHECK (require_pkce IN (0, 1)),
  created_at    INTEGER NOT NULL,
  created_by    TEXT    NOT NULL,                 -- id of a token or a user; '' for the operator, and for one that registered itself
  used_at       INTEGER                           -- when somebody let it in last, to a day; NULL for never
) STRICT;

CREATE INDEX oauth_clients_namespace ON oauth_clients (namespace_id) WHERE namespace_id IS NOT NULL;

-- The secrets of clients that aren't public. One of each has no end; those before it work until theirs.
CREATE TABLE oauth_client_secrets (
  seq        INTEGER PRIMARY KEY AUTOINCREMENT,
  id         TEXT    NOT NULL UNIQUE,
  client_id  TEXT    NOT NULL REFERENCES oauth_clients (id) ON DELETE CASCADE,
  hash       BLOB    NOT NULL CHECK (length(hash) = 32),
  hint       TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  ends_at    INTEGER
) STRICT;

CREATE UNIQUE INDEX oauth_client_secrets_current ON oauth_client_secrets (client_id) WHERE ends_at IS NULL;
CREATE INDEX oauth_client_secrets_client ON oauth_client_secrets (client_id);

-- +goose Down
DROP TABLE oauth_client_secrets;
DROP TABLE oauth_clients;
