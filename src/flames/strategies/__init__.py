"""How a server turns updates into the next weights: pure functions over named arrays."""
