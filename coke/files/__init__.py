"""Files that are whole or absent: durable writes, locks, hashes, publishing a folder."""
