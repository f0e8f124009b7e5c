"""One declaration per file: what is run, for how long, and what the original reports."""
