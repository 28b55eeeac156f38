"""A study's results: typed Parquet rows, readable while a search runs, without torch or Ray."""
