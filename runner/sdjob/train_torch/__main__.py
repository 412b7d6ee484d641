"""`python -m sdjob.train_torch`: started by `sdjob run` and `sdjob sample`, once for each device."""

import gc
import sys

if __name__ == "__main__":
    # Importing makes a million objects and hardly any garbage: to look for it again and again is a sixth of the imports' time.
    gc.disable()
    from sdjob.train_torch.imports import import_packages

    import_packages()
    from sdjob.train_torch.main import main

    gc.freeze()
    gc.enable()
    sys.exit(main())
