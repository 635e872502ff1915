"""`python -m nlvc` does the same as `nlvc`."""

import sys

from nlvc.cli import main

sys.exit(main())
