"""The command line: `python -m fastnet`, which is `fastnet` too where the package is installed."""

import sys

from fastnet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
