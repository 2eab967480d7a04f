"""Data: which scans, read once, cut into what networks train on."""
