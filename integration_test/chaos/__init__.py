"""Chaos: worker processes that die, freeze and lose connections at every moment, and checkers of what is left.

run.py       a storm of faults by a seed: `python -m integration_test.chaos.run`
scenarios.py one fault each, as short as it can be
planted.py   bugs planted into a worker, one at a time
mutants.py   every planted bug must be caught: `python -m integration_test.chaos.mutants`
worker.py    a worker with named points and perhaps a planted bug

What these stand on is in `integration_test/harness`.
"""
