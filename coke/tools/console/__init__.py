"""What all commands print in the same way."""
