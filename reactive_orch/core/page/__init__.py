"""What the page is fed with, made of one look after the other."""
