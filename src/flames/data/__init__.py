"""Files become cases: source formats, checks, splits, the prepared store and its loader."""
