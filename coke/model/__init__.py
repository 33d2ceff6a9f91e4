"""Batch.views -> features and loss; optimiser, precision, checkpoint."""
