"""How long ``omni-mlflow contracts --validate`` takes as a new process, Python's start included.

python -m benchmarks.contracts_cold
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

TURNS = 10
COMMAND = [sys.executable, "-m", "omni_mlflow", "contracts", "--validate", "--json"]


def main() -> None:
    """Print the median and the range over ten processes."""
    seconds = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        subprocess.run(COMMAND, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begun)
    print(f"median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s of {TURNS}")


if __name__ == "__main__":
    main()
