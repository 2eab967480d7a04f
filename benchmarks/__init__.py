"""What the bundle costs: one command per table of docs/speed.md, see there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bundle"))  # which is no installed package
