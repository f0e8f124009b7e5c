"""Runs: carried out, resumed, stored in folders, found again, evaluated again."""
