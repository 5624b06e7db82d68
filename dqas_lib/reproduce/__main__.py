"""`python -m dqas_lib.reproduce`."""

import sys

from dqas_lib.reproduce.cli import main

sys.exit(main())
