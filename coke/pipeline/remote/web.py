"""An image on the web, by its URL: fetched whole within limits, or the reason why it cannot be.

Tables of URLs come from crawls. Some of their links are dead, some servers are slow or broken, and
some responses never end. A server's refusal is an answer (:class:`RefusedError`). Everything else
that is no image is no answer (:class:`NoAnswerError`), and another time there may be one.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from coke.pipeline.remote.filesystem import filesystem_of

MOST_BYTES = 128_000_000  # of one image: all of it is held in memory
MOST_SECONDS = 60.0  # for one image, all tries and the pauses between them together
_CONNECT_SECONDS, _SILENCE_SECONDS = 15.0, 30.0
_TRIES = 5
FIRST_PAUSE_S = 0.5  # doubles with each try
#: A host that could not be reached for so many images in a row gets one short try for each
#: further image, until it answers.
_SUSPECT_AFTER, _SUSPECT_SECONDS = 3, 5.0
_UNKNOWN_SECONDS = 60.0  # for which the name of an unknown host is not looked up again
_WORTH_ANOTHER_TRY = (408, 425, 429)  # HTTP statuses, besides all of 500 and above
_UNKNOWN = "the name of its host is unknown"
_unreached: Counter[str] = Counter()  # by host: images in a row, in this process
_unknown_until: dict[str, float] = {}  # by host: the monotonic clock when it is looked up again


class RefusedError(OSError):
    """The server has answered that it does not give the image, or gives something else."""


class NoAnswerError(OSError):
    """No image, and no answer that there is none: another time there may be one."""


@dataclass(frozen=True)
class _Response:
    status: int
    reason: str
    wait: str  # the header Retry-After
    body: bytes


def is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def fetch_image(url: str) -> bytes:
    """All bytes of a file on the web.

    Raises:
        RefusedError: there is none, or it is too large; ``strerror`` says why.
        NoAnswerError: none has come after all tries; ``strerror`` says why.
    """
    try:
        host = urlsplit(url).netloc
    except ValueError as error:
        raise RefusedError(errno.EINVAL, f"no valid URL ({error})", url) from error
    if time.monotonic() < _unknown_until.get(host, 0.0):
        raise NoAnswerError(errno.EIO, _UNKNOWN, url)
    suspect = _unreached[host] >= _SUSPECT_AFTER
    return _tried(url, host, *((1, _SUSPECT_SECONDS) if suspect else (_TRIES, MOST_SECONDS)))


def _tried(url: str, host: str, tries: int, seconds: float) -> bytes:
    end = time.monotonic() + seconds
    for number in range(1, tries + 1):
        pause = FIRST_PAUSE_S * 2 ** (number - 1)
        try:
            response = _response(url, end - time.monotonic())
        except (RefusedError, NoAnswerError):
            raise
        except Exception as error:
            reached = False
            if refusal := _refusal(error):
                raise RefusedError(errno.EINVAL, refusal, url) from error
            why = _why(error)
            if _is_unknown_host(error):
                _unknown_until[host] = time.monotonic() + _UNKNOWN_SECONDS
            if _is_final(error):
                break
        else:
            reached = True
            _unreached[host] = 0
            if 200 <= response.status < 300:
                return response.body
            why = f"the server answered {response.status} {_phrase(response)}"
            if response.status < 500 and response.status not in _WORTH_ANOTHER_TRY:
                raise RefusedError(errno.EACCES, why, url)
            if response.wait.isdigit():
                pause = max(pause, float(response.wait))
        if number == tries or time.monotonic() + pause >= end:
            break
        time.sleep(pause)
    _unreached[host] += not reached
    times = f", {number} times" if number > 1 else ""
    raise NoAnswerError(errno.EIO, f"{why}{times}", url)


def _response(url: str, seconds: float) -> _Response:
    """One try, within a time, its body no longer than the limit.

    The bytes are counted as they come: fsspec's own reading takes all that is sent into memory.
    """
    import aiohttp
    from fsspec.asyn import sync

    system, inside = filesystem_of(url)
    timeout = aiohttp.ClientTimeout(
        total=max(seconds, 0.1),
        sock_connect=min(_CONNECT_SECONDS, seconds),
        sock_read=min(_SILENCE_SECONDS, seconds),
    )

    async def get() -> _Response:
        session = await system.set_session()
        async with session.get(system.encode_url(inside), timeout=timeout) as response:
            wait = response.headers.get("Retry-After", "")
            found, chunks = 200 <= response.status < 300, []
            size = response.content_length or 0
            if found and size <= MOST_BYTES:
                size = 0
                async for chunk in response.content.iter_chunked(1 << 16):
                    size += len(chunk)
                    if size > MOST_BYTES:
                        break
                    chunks.append(chunk)
            if found and size > MOST_BYTES:
                response.close()  # rather than reading on for the sake of the connection
                raise RefusedError(
                    errno.EFBIG,
                    f"the response has more than {MOST_BYTES:,} bytes: if it is an image, "
                    "download it and give its path",
                    url,
                )
            return _Response(response.status, response.reason or "", wait, b"".join(chunks))

    response: _Response = sync(system.loop, get)
    return response


def gives_parts(url: str) -> bool:
    """Whether a server answers a request for a part of a file with that part alone.

    True also where it does not answer at all: whoever reads the file says so.
    """
    import aiohttp
    from fsspec.asyn import sync

    system, inside = filesystem_of(url)
    timeout = aiohttp.ClientTimeout(total=_SILENCE_SECONDS, sock_connect=_CONNECT_SECONDS)

    async def ask() -> bool:
        session = await system.set_session()
        first_byte = {"Range": "bytes=0-0"}
        address = system.encode_url(inside)
        async with session.get(address, headers=first_byte, timeout=timeout) as response:
            is_whole = response.status == HTTPStatus.OK and (response.content_length or 2) > 1
            response.close()  # a whole file is not read
            return not is_whole

    try:
        return bool(sync(system.loop, ask))
    except Exception:  # aiohttp's and asyncio's errors
        return True


def why_unread(url: str) -> str | None:
    """The reason why a URL that fsspec finds no file at cannot be read; None if there is none."""
    import aiohttp

    system, inside = filesystem_of(url)
    try:
        system.info(inside)
    except Exception as error:  # aiohttp's, wrapped by fsspec
        cause = error.__cause__
        if isinstance(cause, aiohttp.ClientResponseError) and cause.status != HTTPStatus.NOT_FOUND:
            return f"the server answered {cause.status} {_known_phrase(cause.status)}"
        if isinstance(cause, aiohttp.ClientConnectionError | TimeoutError):
            return _why(cause)
    return None


def _phrase(response: _Response) -> str:
    return response.reason or _known_phrase(response.status)


def _known_phrase(status: int) -> str:
    known = {known.value: known.phrase for known in HTTPStatus}
    return known.get(status, "")


def _refusal(error: Exception) -> str | None:
    """What an error says of the URL itself; None where it says something of the connection."""
    import aiohttp

    if isinstance(error, aiohttp.TooManyRedirects):
        return "too many redirects"
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return f"no valid URL ({error})"
    return None


def _is_final(error: Exception) -> bool:
    """Whether the next try would end the same."""
    return _is_insecure(error) or _is_unknown_host(error)


def _is_insecure(error: Exception) -> bool:
    import aiohttp

    return isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError)


def _is_unknown_host(error: Exception) -> bool:
    cause: Any = getattr(error, "os_error", None)
    names = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    return isinstance(cause, socket.gaierror) and cause.errno in names


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no whole answer in time"
    if _is_unknown_host(error):
        return _UNKNOWN
    if _is_insecure(error):
        return f"no secure connection ({error})"
    first = next(iter(str(getattr(error, "message", "") or error).splitlines()), "")
    return f"no answer ({first.rstrip(':') or type(error).__name__})"
