"""One offline HTML page about a study, from its Parquet rows alone."""
