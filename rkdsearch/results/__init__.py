"""A study's results: typed Parquet rows in a folder, readable while the search runs, without torch or Ray."""
