CREATE TABLE IF NOT EXISTS invoices (id text PRIMARY KEY, cents integer NOT NULL);
