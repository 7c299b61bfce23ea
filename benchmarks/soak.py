"""`python -m benchmarks.soak [REQUESTS]`: a million requests through one door; prints time and memory per tenth."""

from __future__ import annotations

import sys

from benchmarks.scale import soak, soak_table


def main() -> None:
    """Run and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(soak_table(soak(count), count))


if __name__ == "__main__":
    main()
