"""Workers on a Ray cluster: one function over many pieces of work, with the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from coke.distributed.workers import PIECES_AHEAD, Mapper, Result, Task


@contextmanager
def ray_pool(workers: int | None, *, address: str | None) -> Iterator[Mapper]:
    """A ``map`` over a Ray cluster, one core per piece of work.

    Pieces name their files by path, so all nodes must see the same file system. If a node is lost,
    another node does its pieces again.

    Args:
        workers: number of pieces at work at the same time; all cores of the cluster if None.
        address: address of an existing cluster; ``"auto"`` finds one on this machine. None takes
            the cluster in ``RAY_ADDRESS``, or starts one on this machine for the ``with`` block.

    Raises:
        ValueError: Ray is not installed, the cluster cannot be reached, or its workers die.
    """
    try:
        import ray
        from ray import exceptions
    except ImportError as error:
        raise ValueError(
            "--engine ray needs Ray, which is not installed: pip install 'coke[ray]'"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    cores = int(ray.cluster_resources().get("CPU", 1))
    at_work = cores if workers is None else workers
    # Only lost nodes are retried: an error of the function itself is reported at once.
    remote: Any = ray.remote(num_cpus=1, max_retries=3, retry_exceptions=False)(_call)
    pending: deque[Any] = deque()

    def run(function: Callable[[Task], Result], tasks: Iterable[Task], /) -> Iterator[Result]:
        for task in tasks:
            pending.append(remote.remote(function, task))
            # A given number of workers limits the number of pieces that Ray has at a time.
            if len(pending) >= (cores * PIECES_AHEAD if workers is None else at_work):
                yield ray.get(pending.popleft())
        while pending:
            yield ray.get(pending.popleft())

    try:
        yield run
    except exceptions.RayTaskError as error:
        # The function's own error, without the traceback of another machine in its message.
        raise error.cause from error
    except exceptions.RayError as error:
        raise ValueError(
            f"the Ray cluster failed ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "run the same command again to continue, with fewer --workers if memory was short"
        ) from error
    finally:
        with suppress(exceptions.RayError):  # the cluster may be gone
            for reference in pending:
                ray.cancel(reference, force=True)
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(
            address=address,
            namespace="coke-ingest",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"cannot reach a Ray cluster at {address or 'RAY_ADDRESS or on this machine'} "
            f"({error}); give its --ray-address, or use --engine process"
        ) from error


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    return function(task)
