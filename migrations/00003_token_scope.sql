-- +goose Up

-- The tables that a token may touch, as a JSON array of names; NULL is all of them.
ALTER TABLE tokens ADD COLUMN table_scope TEXT;

-- +goose Down
-- A token with a scope must not become one without.
DELETE FROM tokens WHERE table_scope IS NOT NULL;
ALTER TABLE tokens DROP COLUMN table_scope;
