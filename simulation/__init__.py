"""Putting it together: engines, attacks and their scoring, tables, report, command line."""
