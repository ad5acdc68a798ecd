"""`python -m f3eo.cli` runs `f3eo`."""

import sys

from f3eo.cli import main

sys.exit(main())
