import sys
from pathlib import Path

# The benchmarks are scripts, and each finds its neighbours in its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
