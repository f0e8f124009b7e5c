"""Run folders -> tables, verdicts and pages. Imports no TensorFlow."""
