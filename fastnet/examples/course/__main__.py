"""`python -m fastnet.examples.course`."""

import sys

from fastnet.examples.course.main import main

if __name__ == "__main__":
    sys.exit(main())
