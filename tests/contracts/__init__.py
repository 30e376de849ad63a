"""What is held of the whole: the house rules, the pages, the tables, the requirements."""
