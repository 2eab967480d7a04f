"""Engines: the loop of a training and the loop over scans."""
