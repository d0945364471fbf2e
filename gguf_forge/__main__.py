"""`python -m gguf_forge`: the command line."""

import sys

from gguf_forge.cli import main

sys.exit(main())
