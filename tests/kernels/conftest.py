"""Puts this folder's helper modules on the path, whatever pytest was told to run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
