"""Utilities: atomic files, helpful errors, precision, several processes, and the check of config stacks."""
