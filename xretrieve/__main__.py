"""``python -m xretrieve`` is the command line."""

import sys

from xretrieve.cli.main import main

sys.exit(main())
