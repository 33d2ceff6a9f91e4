"""From views to features and the loss: backbones, heads, optimisers, precision."""
