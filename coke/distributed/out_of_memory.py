"""How running out of memory shows."""

from __future__ import annotations

#: Words of torch, DALI, cuBLAS and cuDNN, which raise plain RuntimeErrors.
_WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "alloc_failed",
    "cudaerrormemoryallocation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of the host or of a GPU could not be had."""
    if isinstance(error, MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in said for words in _WORDS)
