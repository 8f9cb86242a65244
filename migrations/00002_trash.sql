-- +goose Up

-- A deleted database stays in the trash until restorable_until: its row and its file are as they were, and an undelete
-- takes both back. condemned_at ends that: from then on nothing brings it back, its files go, then the row.
ALTER TABLE databases ADD COLUMN restorable_until INTEGER;
ALTER TABLE databases ADD COLUMN condemned_at INTEGER;

-- Until now a deletion took the files at once.
UPDATE databases SET condemned_at = deleted_at WHERE deleted_at IS NOT NULL;

CREATE INDEX databases_condemned ON databases (condemned_at) WHERE condemned_at IS NOT NULL;

-- +goose Down
DELETE FROM databases WHERE deleted_at IS NOT NULL;
DROP INDEX databases_condemned;
ALTER TABLE databases DROP COLUMN condemned_at;
ALTER TABLE databases DROP COLUMN restorable_until;
