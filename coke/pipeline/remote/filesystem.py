"""The fsspec file system of a URL, and the package that has to be installed for it."""

from __future__ import annotations

from typing import Any

#: By protocol of a URL: the package that implements it, and the extra of coke that installs it.
PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "hf": ("huggingface_hub", "hf"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
}
_SILENCE_S = 60.0  # seconds without a byte after which a request to a web server has failed


def filesystem_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path inside that file system.

    Raises:
        ValueError: the protocol is unknown, or its package is missing. The message names the
            package to install.
    """
    import fsspec

    protocol = url.partition("://")[0].lower()
    options: dict[str, Any] = {}
    try:
        if protocol in ("http", "https"):
            import aiohttp

            # aiohttp allows five minutes for a whole file, however large. This limits silence.
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_SILENCE_S)
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
        system, inside = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        package, extra = PACKAGES.get(protocol, (None, None))
        if package is None:
            raise ValueError(f"{url} needs a package that is missing: {error}") from error
        raise ValueError(
            f"{protocol}:// needs the package {package}: pip install 'coke[{extra}]'"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{url} cannot be opened: {error}; known are paths and s3://, gs://, hf://, http(s)://"
        ) from error
    return system, str(inside)
