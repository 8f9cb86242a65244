-- +goose Up

-- The address of a user's picture, as a sign-in provider tells it: it is passed on to apps, and never fetched here.
ALTER TABLE users ADD COLUMN picture TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN picture_of TEXT NOT NULL DEFAULT ''; -- id of the user's identity whose provider told it; '' for none

-- +goose Down
ALTER TABLE users DROP COLUMN picture_of;
ALTER TABLE users DROP COLUMN picture;
