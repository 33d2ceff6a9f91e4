"""One image: which format its bytes are, whether they decode, and the JPEG that is stored."""
