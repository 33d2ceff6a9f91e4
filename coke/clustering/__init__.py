"""From features to labels, centers and duals.

Training: ``clustering.py`` joins heads (``head.py``) and the label store. Embeddings: the estimator
(``estimator.py``) and its fit (``fitting.py``), from points (``points.py``) to sizes that hold
(``repair.py``, ``transport.py``).
"""

from coke.clustering.clustering import Clustering, HeadReport
from coke.clustering.label_store import LabelStore

__all__ = ["Clustering", "HeadReport", "LabelStore"]
