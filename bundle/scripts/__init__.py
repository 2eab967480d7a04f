"""Unpaired super-resolution of brain MRI: networks, transforms and objectives that the configs compose."""
