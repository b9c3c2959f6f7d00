"""Early-failure signatures: series in, findings out. Pure; limits come from the catalogue with their sources."""
