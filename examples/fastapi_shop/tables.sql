CREATE TABLE IF NOT EXISTS purchases (
    id       text PRIMARY KEY,
    customer text    NOT NULL,
    total    float8  NOT NULL,
    state    text    NOT NULL
);
