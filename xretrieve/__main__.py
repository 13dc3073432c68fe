"""``python -m xretrieve`` is the command line."""

import sys

from xretrieve.cli.main import main

if __name__ == "__main__":  # a server's processes that decode pictures import it too
    sys.exit(main())
