CREATE TABLE IF NOT EXISTS articles (
    id    text PRIMARY KEY,
    title text NOT NULL
);
CREATE TABLE IF NOT EXISTS article_prices (
    article text    NOT NULL REFERENCES articles,
    version bigint  NOT NULL,
    price   integer NOT NULL,
    PRIMARY KEY (article, version)
);
