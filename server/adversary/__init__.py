"""What the coordinator, or somebody beside it, may try: placements, attacks, nulls."""
