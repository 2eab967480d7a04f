"""Handlers: what an engine calls at its events, such as savers, monitors, tables and contrastive terms."""
