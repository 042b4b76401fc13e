"""Scores per case, tables of them, and the statistics that a reviewer asks for.

``cases`` needs MONAI; ``presence``, ``statistics`` and ``tables`` need neither it nor torch, so
nothing is imported here.
"""
