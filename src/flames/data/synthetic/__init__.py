"""Made-up hospitals: six small sites that FLAMES draws itself, for the demo and the tests."""

from flames.data.synthetic.stores import make_federation, make_store

__all__ = ["make_federation", "make_store"]
