from __future__ import annotations

import os
import sys

from hypothesis import settings

# The installed package is tested, in processes that tests start, too: that of the checkout may have no kernels.
sys.path[:] = [entry for entry in sys.path if entry]
os.environ["PYTHONSAFEPATH"] = "1"

# A busy machine is no failure.
settings.register_profile("gguf-forge", deadline=None)
settings.load_profile("gguf-forge")
