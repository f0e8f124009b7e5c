"""A seeded campaign of kills and damaged inputs, for maintainers: `make chaos`.

Runs of every kind of model are killed at random points and repeated until they finish; the folder must then equal that
of a run that was never interrupted, to the bit. Files of finished runs are damaged, and options are given odd texts; a
command must name the damage in one line, or be unaffected by it.
"""
