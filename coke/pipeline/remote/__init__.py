"""Files behind a URL: reading, retrying, sending."""
