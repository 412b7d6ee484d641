"""A large object passes through in a small part of its size; `benchmarks/transfer_memory.py` has the figures of 4 GiB."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "transfer_memory.py"
GIB = 0.375
LIMIT_MIB = 200  # the SDK takes 70, the ranges on their way 64; the object is 384


def test_memory_does_not_grow_with_the_object(tmp_path):
    command = [sys.executable, str(BENCHMARK), "--place=s3", f"--gib={GIB}", f"--folder={tmp_path}"]
    measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert measured["gib"] == GIB
    assert measured["up_peak_mib"] < LIMIT_MIB
    assert measured["down_peak_mib"] < LIMIT_MIB
