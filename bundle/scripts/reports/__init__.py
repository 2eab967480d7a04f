"""Reports: the content of a dataset, the config lines that suit it, and the degradation between its groups."""
