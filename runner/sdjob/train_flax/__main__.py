"""`python -m sdjob.train_flax TASK.json`: started by `sdjob run`, once for each host."""

import sys

from sdjob.train_flax.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
