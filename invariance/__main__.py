import sys

from invariance.cli import main

sys.exit(main())
