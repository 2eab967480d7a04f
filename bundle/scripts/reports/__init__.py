"""Reports for people: what a dataset holds, which lines of the config suit it, and how its two groups differ."""
