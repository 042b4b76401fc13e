"""What weights look like while they travel: fewer bits, differences, the largest entries."""
