"""Methods that reference.py prices with; they share no code with ``privacy``."""
