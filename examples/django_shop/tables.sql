CREATE TABLE IF NOT EXISTS django_shop_customer (
    id   text PRIMARY KEY,
    name text NOT NULL
);
CREATE TABLE IF NOT EXISTS django_shop_order (
    id    text PRIMARY KEY,
    owner text NOT NULL,
    state text NOT NULL
);
