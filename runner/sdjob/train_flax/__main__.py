"""`python -m sdjob.train_flax`: started by `sdjob run`, once for each host."""

import gc
import sys

if __name__ == "__main__":
    # Importing makes a million objects and hardly any garbage: to look for it again and again is a sixth of the imports' time.
    gc.disable()
    from sdjob.train_flax.main import main

    gc.freeze()
    gc.enable()
    sys.exit(main())
