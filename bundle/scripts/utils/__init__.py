"""Utilities: files written whole, errors that help, precision, processes."""
