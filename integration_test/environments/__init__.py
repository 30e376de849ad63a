"""What users run this on, run: bare machines, containers, hosts of a network, a cluster that fails over, Jaeger.

Each folder is a stage with a target of its own (`make test-fresh`, `make test-containers`, …): each takes minutes, and
needs programs that a machine may lack. `needs.py` says which.
"""
