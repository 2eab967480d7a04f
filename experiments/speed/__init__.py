"""What the bundle costs: one command per table of docs/speed.md, see there."""
