from __future__ import annotations

import os
import signal
import sys

from hypothesis import settings

# The installed package is tested, in processes that tests start, too: that of the checkout may have no kernels.
sys.path[:] = [entry for entry in sys.path if entry]
os.environ["PYTHONSAFEPATH"] = "1"

# A job in the background is started with this ignored, and so would be all that its tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure.
settings.register_profile("gguf-forge", deadline=None)
settings.load_profile("gguf-forge")
