"""The table that the backfill's benchmark loads, its items, and the ways of loading it."""
