"""The loader: order, bytes and views become batches.

``loader`` has ``build_loader``; ``reader`` gives stored bytes by id; ``backend`` says what a
backend is given and gives. There are three: ``dali_backend``, ``pil_backend`` and ``ffcv_backend``
(with ``ffcv_operation``, the code that FFCV's threads run).
"""
