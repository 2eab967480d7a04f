"""Studies: one program per question about the physics, the estimates and the limits."""
