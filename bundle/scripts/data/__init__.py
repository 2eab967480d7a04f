"""Data: lists of scans, datasets and samplers, and the slabs that networks train on."""
