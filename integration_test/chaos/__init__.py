"""Chaos: worker processes that die, freeze and lose connections at every moment, and checkers of what is left.

worker.py    a worker whose named points can kill, stop, break or delay it (by environment variables)
planted.py   bugs planted into a worker, one at a time
proxy.py     a network that swallows or cuts
stage.py     a recorded database, worker processes, writers that hold back, roll back and prepare
faults.py    what happens to them from outside
checkers.py  what must be true afterwards
run.py       a storm of faults by a seed: `python -m integration_test.chaos.run`
scenarios.py one fault each, as short as it can be
mutants.py   every planted bug must be caught: `python -m integration_test.chaos.mutants`
"""
