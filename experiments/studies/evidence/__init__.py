"""Evidence downstream: what a restored scan does to tissue, boundaries, lesions and places, and where it harms."""
