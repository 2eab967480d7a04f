"""Utilities: atomic files, helpful errors, precision, several processes, and the checks of configs and arguments."""
