CREATE TABLE IF NOT EXISTS hours (sensor text, hour timestamptz, readings integer NOT NULL, warmest real NOT NULL, PRIMARY KEY (sensor, hour));
CREATE TABLE IF NOT EXISTS hours_one_by_one (LIKE hours INCLUDING ALL);
