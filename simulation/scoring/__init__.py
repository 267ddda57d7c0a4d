"""Where guesses and truth meet: pairing, similarity, identification, and the exact tests around them."""
