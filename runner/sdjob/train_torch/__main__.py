"""`python -m sdjob.train_torch TASK.json`: started by `sdjob run` and `sdjob sample`, once for each device."""

import sys

from sdjob.train_torch.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
