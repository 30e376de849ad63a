"""What the performance figures are made with.

    python -m bench                 all measurements, into bench/RESULTS.md
    python -m bench --only latency  one of them
    python -m bench --list          what there is
    python -m bench.peers           the same work on other packages; see bench/peers/__init__.py
    python -m bench.plots           pictures of some, into docs/ (make plots)

Each measurement is a module with one function, `measure(scene)`, that returns the section it writes. Servers are
temporary and flush to the disk as a production server does (`fsync` and `synchronous_commit` on). Ratios are taken
pairwise in one run, turn by turn, against bare asyncpg doing the same work in a process of its own: the floor.
"""
