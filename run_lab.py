"""`python run_lab.py …` is `slm-lab …`."""

import sys

from slm_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
