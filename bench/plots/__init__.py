"""Measure in a real run, and draw it: python -m bench.plots [--only NAME] [--pg 15|18].

One module a picture, each with `measure(scene)`, which returns what there is to draw, and `draw(data)`. They need
matplotlib: pip install 'reactive_orch[bench]'.
"""
