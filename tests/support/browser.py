"""What a page looks like in a browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def screenshot(page: Path, folder: Path, *, width: int = 1100, height: int = 1800) -> NDArray[Any]:
    """The page (height, width, 3) uint8 as a headless browser draws it, without a network.

    Skips the test if there is no browser.
    """
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            "--force-device-scale-factor=1",
            f"--window-size={width},{height}",
            "--virtual-time-budget=10000",
            f"--screenshot={folder / 'page.png'}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=100,
    )
    with Image.open(folder / "page.png") as image:
        return np.asarray(image.convert("RGB"))
