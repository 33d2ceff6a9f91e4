"""Views: what one stored image becomes.

A recipe (:mod:`coke.config.view_recipe`) says which distributions. ``draw`` turns a recipe into
numbers for a batch of ids. Two implementations apply the same numbers:

- DALI: ``dali`` is the graph, ``dali_inputs`` the numbers as the graph reads them, ``dali_views``
  the queue of batches, ``dali_stages`` the graph's halves alone, for the benchmark.
- ``pil_reference``: PIL and numpy; the oracle of the tests, and what runs where DALI does not.
"""
