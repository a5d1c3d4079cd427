"""Measures the trainer beside its peers on the machine at hand: `python -m benchmarks --help`.

Knows the trainer and the peers; nothing else knows it. Every figure of `docs/benchmarks.md` comes from a command here.
"""
