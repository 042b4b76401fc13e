"""Client and server of a federation, and their simulation in one process."""
