"""Reports: what a dataset holds, and what its spectra say."""
