"""Measured comparisons of offramp with its floors and its peers; see docs/performance.md.

A floor is the least that the same work could cost: the bare library underneath, without a server's duties. A
peer is another server that a user could pick. Both run in the same rounds as offramp, so that what counts, the
ratio, is taken on the same machine at the same moment. `python -m benchmarks --help` tells how to run them.
"""
