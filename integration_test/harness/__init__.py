"""What the tests stand on.

waiting.py      waiting for facts, never for time to pass
servers.py      which PostgreSQL servers there are; cluster.py: a server of one's own, its databases and its standby
places.py       where their data lie
connections.py  a test's own connections
processes.py    processes that are started, followed and ended; command_line.py: commands and how they end
terminals.py    a terminal, and a command in it
load.py         what is appended: at once, by a steady load, by writers who hold back, roll back and prepare
projections.py, telemetry_projections.py   what the workers run; each records what it handled
statements.py   the statements of .sql files
in_process.py   workers inside the test; health.py: what they say of their health
checkers.py     what is asked of a database: who handled what, in what order, how often
logs.py         the log as tests change it, have it handled, and read it
otlp.py         a receiver of traces and metrics
cases.py        cases of parametrized tests; findings.py: of tests that a planted bug must fail
talkative.py    the command line, which says sooner how far it is

For storms and scenarios:
arena.py        a recorded database, workers that may die, and what has been found
points.py       named points in a worker at which it kills, freezes or delays itself
faults.py       what happens to workers from outside; proxy.py: a network that swallows or cuts
recorded.py     what must be true afterwards, by what triggers have recorded
report.py       sections of a Markdown file that programs write
"""
