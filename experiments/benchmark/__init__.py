"""The papers' tables and figures on any data: a matrix of runs, each of them a few commands of the bundle."""
