"""Data: lists of scans, datasets and samplers, and the samples that networks train on."""
