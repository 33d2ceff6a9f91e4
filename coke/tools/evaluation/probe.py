"""The online probe: how well classifiers do on the backbone's features, every few epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from coke.config.config import Config
from coke.model.precision import inference_precision, resolve_precision
from coke.pipeline.dataset.index import ImageIndex
from coke.pipeline.dataset.open import find_split
from coke.pipeline.remote.remote import location
from coke.tools.evaluation.accuracy import topk_accuracy
from coke.tools.evaluation.knn_classifier import knn_classify
from coke.tools.evaluation.labelled_data import check_two_classes, open_splits, with_labels
from coke.tools.evaluation.representations import Representation, evaluation_loader, frozen
from coke.tools.evaluation.ridge_classifier import fit_ridge

K, TEMPERATURE = 20, 0.07  # as `coke eval knn`
_BATCH = 256
#: Share of the sample that is classified by the rest, for a data set without a test set.
_HELD_OUT = 0.2
#: How to go on with partly labelled data.
_LABELLED_ONLY = "leave those out with --set run.probe_labelled_only=true"


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """Share of test images whose class is found, in percent; None if a feature is not finite.

    Attributes:
        knn: by weighted k-NN, see :func:`knn_classify`.
        linear: by a linear classifier, see :func:`fit_ridge`.
    """

    knn: float | None = None
    linear: float | None = None


class OnlineProbe:
    """Classifies labelled images by others: by nearest neighbours, and by a linear classifier.

    The images are the same at every epoch: the first in the order that the run's seed gives. At
    most ``config.run.probe_images`` training images classify half as many test images. If there is
    no test set, a fifth of the training images is held out instead. With ``order="blocks"`` the
    sample consists of whole containers.

    Args:
        config: settings of the run.
        data: a labelled data set, or a folder of a train and a test set.

    Raises:
        ValueError: an image has no label and ``config.run.probe_labelled_only`` does not leave it
            out, or all are of one class.
    """

    def __init__(self, config: Config, data: str | Path, device: torch.device) -> None:
        assert config.run.probe_every > 0
        self._config = config
        self._device = device
        labelled_only = config.run.probe_labelled_only
        try:
            cache_dir = config.machine.cache_dir or None
            if find_split(data, ("train",)) == location(data):
                index = ImageIndex(data, cache_dir=cache_dir)
                self._train = with_labels(index, labelled_only=labelled_only, remedy=_LABELLED_ONLY)
                check_two_classes(self._train)
                self._test = None
            else:
                splits = open_splits(
                    data,
                    None,
                    labelled_only=labelled_only,
                    remedy=_LABELLED_ONLY,
                    cache_dir=cache_dir,
                )
                self._train, self._test = splits.train, splits.test
        except ValueError as error:
            raise ValueError(
                f"the probe cannot be made: {error}; name labelled images with --probe-data, or "
                "probe none with --set run.probe_every=0"
            ) from error

    def due(self, epoch: int) -> bool:
        """At the scan, every ``probe_every`` epochs, and at the last."""
        return epoch % self._config.run.probe_every == 0 or epoch == self._config.optimizer.epochs

    def measure(self, backbone: nn.Module) -> ProbeResult:
        """Both accuracies. Leaves ``backbone`` as it was, and draws no random number."""
        # The precision that training has: a probe that chose its own might choose another later.
        trained_in = resolve_precision(self._config.machine.precision, self._device)
        precision = inference_precision(trained_in, self._device)
        represent = frozen(backbone, self._device, precision)
        n = min(self._config.run.probe_images, self._train.n_live)
        bank_ND, labels_N = self._features(represent, self._train, n)
        if self._test is None:
            held = max(1, round(_HELD_OUT * n))
            queries_MD, true_M = bank_ND[:held], labels_N[:held]
            bank_ND, labels_N = bank_ND[held:], labels_N[held:]
        else:
            m = min(max(1, self._config.run.probe_images // 2), self._test.n_live)
            queries_MD, true_M = self._features(represent, self._test, m)
        if not (bank_ND.isfinite().all() and queries_MD.isfinite().all()):
            return ProbeResult()
        n_classes = self._train.n_classes
        by_neighbours_MC = knn_classify(
            bank_ND,
            labels_N,
            queries_MD,
            n_classes=n_classes,
            k=K,
            temperature=TEMPERATURE,
        )
        by_ridge_MC = fit_ridge(bank_ND, labels_N, n_classes).scores(queries_MD)
        return ProbeResult(
            knn=topk_accuracy(by_neighbours_MC, true_M, 1),
            linear=topk_accuracy(by_ridge_MC, true_M, 1),
        )

    def _features(
        self, represent: Representation, index: ImageIndex, n: int
    ) -> tuple[Tensor, Tensor]:
        """Center-crop features (n, D) float32 and labels (n,) int64 of the first images."""
        batch_size = min(_BATCH, n)
        loader = evaluation_loader(
            index,
            self._config,
            self._config.data.view.evaluation(),
            batch_size,
            self._device,
            shuffle=True,
        )
        features, labels, found = [], [], 0
        for batch in loader.epoch(0):
            features.append(represent(batch.views[0].to(self._device)))
            labels.append(torch.from_numpy(np.asarray(index.labels[batch.ids.numpy()])))
            found += len(batch.ids)
            if found >= n:
                break
        return torch.cat(features)[:n], torch.cat(labels)[:n].to(self._device)
