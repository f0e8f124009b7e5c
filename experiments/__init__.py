"""One declaration a file: what is run, for how long, and what the original reports for it."""
