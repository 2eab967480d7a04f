"""Handlers: what stands beside an engine or an objective and has a life of its own."""
