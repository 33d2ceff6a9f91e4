"""Features -> labels, centers, duals; and the id-indexed label store."""

from coke.clustering.clustering import Clustering, HeadReport
from coke.clustering.label_store import LabelStore

__all__ = ["Clustering", "HeadReport", "LabelStore"]
