"""Search spaces: their file format, their check, and sampling from them."""
