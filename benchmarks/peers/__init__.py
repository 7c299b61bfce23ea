"""Peers: other servers of models, each in an environment of its own under .venv-bench/."""
