"""The coordinator: its Flower app and round loop, strategy, exact sums, checkpoints."""
