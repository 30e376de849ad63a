CREATE TABLE IF NOT EXISTS last_pages (visitor text PRIMARY KEY, page text NOT NULL);
CREATE TABLE IF NOT EXISTS visits (position bigint PRIMARY KEY, visitor text NOT NULL, page text NOT NULL);
