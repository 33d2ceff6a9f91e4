"""The fsspec file system behind a URL: opened in one way, with one message where it cannot be."""

from __future__ import annotations

from typing import Any

#: Protocol of a URL: the package that speaks it, and the extra of coke that installs it.
PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "hf": ("huggingface_hub", "hf"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
}
_SILENCE_S = 60.0  # a server that sends nothing for this long has failed


def filesystem_of(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path inside it.

    Raises:
        ValueError: unknown protocol, or its package is missing; the message names what to install.
    """
    import fsspec

    protocol = url.partition("://")[0].lower()
    options: dict[str, Any] = {}
    try:
        if protocol in ("http", "https"):
            import aiohttp

            # Not aiohttp's five minutes for a whole file, however large: a limit on silence.
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
