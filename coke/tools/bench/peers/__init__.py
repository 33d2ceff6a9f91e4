"""The methods a user would pick instead, to compare with: SimCLR, MoCo-v2 and SwAV.

Written from their papers. They share the backbone, projector, precision and loader of CoKe, so
that a comparison is one of methods. One file per method.
"""

from coke.tools.bench.peers.moco import MoCo
from coke.tools.bench.peers.peer import Peer
from coke.tools.bench.peers.simclr import SimCLR
from coke.tools.bench.peers.swav import SwAV

__all__ = ["MoCo", "Peer", "SimCLR", "SwAV"]
