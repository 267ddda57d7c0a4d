"""One hospital: its Flower app, local DP-SGD, its ledger, and what it refuses."""
