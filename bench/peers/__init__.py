"""The same work on what users would pick instead: pgqueuer, procrastinate, eventsourcing.

    python -m bench.peers               all, into bench/RESULTS.md
    python -m bench.peers --no-report   only to the terminal

Each contestant is a script in `scripts/` that its own interpreter runs, from a virtual environment made on demand in
`.bench/`; the versions are in `contestants.py`. All are asked the same questions, turn by turn, each turn on a fresh
database of one server: see `scripts/protocol.py`.
"""
