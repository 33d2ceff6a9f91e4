"""``coke demo``: Fashion-MNIST from files to an evaluated representation."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import urllib.request
import zlib
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coke.config.presets import preset_named
from coke.files.durable import write_bytes
from coke.pipeline.dataset.open import is_dataset
from coke.tools.console.tables import print_table
from coke.tools.datasets.ingest import ingest
from coke.tools.evaluation.knn import eval_knn
from coke.tools.evaluation.linear import eval_linear
from coke.tools.evaluation.representations import cache_features
from coke.tools.training.train import train

#: Where Debian's package ``dataset-fashion-mnist`` puts it.
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PUBLIC_SOURCE = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
#: SHA-256 of the files' decompressed content: compressors differ, images do not.
CONTENT_SHA256 = {
    f"{stem}-ubyte.gz": sha256
    for stem, sha256 in (
        (
            "train-images-idx3",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        (
            "train-labels-idx1",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        (
            "t10k-images-idx3",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        (
            "t10k-labels-idx1",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    )
}


def demo(out: str | Path, *, console: Console | None = None) -> bool:
    """Ingests Fashion-MNIST, trains the preset ``demo``, evaluates it, prints one table.

    Args:
        out: folder for the data set and the run; an earlier demo's run in it is replaced.

    Returns: whether CoKe's features are above both baselines, linear and k-NN.

    Raises:
        ValueError: the images cannot be had.
    """
    console = console or Console()
    out = Path(out)
    data, run = out / "data", out / "run"
    if not is_dataset(data / "test"):
        ingest(find_fashion_mnist(out / "download", console), data, overwrite=True, console=console)
    if (run / "config.toml").is_file():  # an earlier demo's; anything else is not ours to remove
        shutil.rmtree(run)
    train(preset_named("demo"), data, run, console=console)
    features = cache_features(run, data, console=console)
    knn = eval_knn(run, data, features=features, console=console)
    linear = eval_linear(run, data, fast=True, features=features, console=console)

    table = Table(title="Fashion-MNIST: top-1 accuracy on the 10,000 test images, in percent")
    table.add_column("features")
    table.add_column("linear", justify="right")
    table.add_column("k-NN", justify="right")
    for name in linear.rows:
        table.add_row(name, f"{linear.rows[name].top1:.2f}", f"{knn.rows[name].top1:.2f}")
    print_table(console, table)
    better = linear.beats_baselines() and knn.beats_baselines()
    console.print(
        "CoKe, which saw no label, is above both baselines"
        if better
        else "CoKe is [bold]not[/] above both baselines in every column"
    )
    return better


def find_fashion_mnist(download: Path, console: Console) -> Path:
    """The folder of the four IDX files: Debian's, or a download with its hashes checked.

    Raises:
        ValueError: neither works.
    """
    if all((DEBIAN_FOLDER / name).is_file() for name in CONTENT_SHA256):
        return DEBIAN_FOLDER
    download.mkdir(parents=True, exist_ok=True)
    for name, sha256 in CONTENT_SHA256.items():
        if not (download / name).is_file():
            console.print(f"downloading {PUBLIC_SOURCE}/{name}", highlight=False)
            _download(f"{PUBLIC_SOURCE}/{name}", download / name, sha256)
    return download


def _download(url: str, path: Path, content_sha256: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            data = response.read()
        found = hashlib.sha256(gzip.decompress(data)).hexdigest()
    except (OSError, EOFError, zlib.error, http.client.HTTPException) as error:
        raise ValueError(
            f"{url} cannot be downloaded ({error}); on Debian, `apt-get install "
            f"dataset-fashion-mnist` brings the images instead"
        ) from error
    if found != content_sha256:
        raise ValueError(
            f"{url} has content SHA-256 {found}, not {content_sha256}: the download is damaged or "
            "not Fashion-MNIST"
        )
    write_bytes(path, data)
