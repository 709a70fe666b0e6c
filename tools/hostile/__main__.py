"""``python -m hostile``."""

import sys

from hostile.command import main

sys.exit(main())
