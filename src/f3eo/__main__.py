"""`python -m f3eo` is `f3eo`."""

import sys

from f3eo.cli import main

sys.exit(main())
