-- Who has a room; until when he has to pay, NULL once he has.
CREATE TABLE IF NOT EXISTS holds (room text PRIMARY KEY, booking text NOT NULL UNIQUE, until timestamptz);
