"""Studies: one program for each question about the physics, the estimates and the limits."""
