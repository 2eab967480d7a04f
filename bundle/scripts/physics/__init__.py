"""Physics: k-space, filters, spectra and what follows from them, on tensors and arrays alone."""
