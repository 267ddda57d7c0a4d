"""The report: what was learnt and what leaked, in one HTML file."""
