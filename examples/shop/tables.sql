-- The read models' own tables: yours to create and to migrate, in whatever schema your search_path finds.
CREATE TABLE IF NOT EXISTS orders_per_customer (customer text PRIMARY KEY, orders integer NOT NULL);
CREATE TABLE IF NOT EXISTS order_list (order_id text PRIMARY KEY, state text NOT NULL);
