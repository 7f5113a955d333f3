"""``python -m cfr_fast`` is ``cfr``."""

import sys

from cfr_fast.cli import main

sys.exit(main())
