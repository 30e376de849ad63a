"""Bare machines of several distributions, and the README's two commands on them."""
