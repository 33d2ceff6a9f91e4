"""Images on disk -> Batch(ids, views)."""
