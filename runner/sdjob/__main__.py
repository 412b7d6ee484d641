"""`python -m sdjob`, where the command is not on the path."""

import sys

from sdjob.cli.main import main

sys.exit(main())
