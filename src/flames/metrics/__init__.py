"""Scores per case, tables of them, and the statistics that a reviewer asks for."""
