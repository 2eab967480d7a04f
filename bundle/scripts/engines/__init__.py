"""Engines: who owns time."""
