"""Programs that make a table or a figure, and their results."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
sys.path.insert(0, str(ROOT / "bundle"))  # the bundle is not an installed package
