"""Rules of advice about steps, speed and accuracy. A rule returns what it finds wrong, or None."""

from __future__ import annotations

import statistics

from coke.files.byte_size import parse_bytes, show_bytes
from coke.tools.page.content import Finding
from coke.tools.page.run_facts import SETTLED_EPOCH, RunFacts
from coke.tools.page.run_records import PROBES, known, last

#: Share of the time spent waiting for data from which on loading limits training.
DATA_WAIT = 0.2
#: Points of accuracy below the best probe; two standard errors of 5,000 test images.
PROBE_FALL = 1.4
#: Share of the speed of the run's median epoch.
SLOW = 0.6


def not_finite(facts: RunFacts) -> Finding | None:
    """NaN or infinity, or steps that were skipped for it."""
    bad, skipped = facts.records.not_finite, sum(known(facts.records.values("skipped_steps")))
    if not bad and not skipped:
        return None
    shown = f"{skipped:,.0f} steps were skipped. " if skipped else ""
    shown += f"{bad[0][0].upper()}{bad[0][1:]}." if bad else ""
    return Finding(
        title="Steps were not finite",
        numbers=shown.strip(),
        rule="a step was skipped, or a number of an epoch is NaN or infinite",
        remedy="lower optimizer.lr, lengthen optimizer.warmup_epochs, or train with "
        "machine.precision=fp32; the warnings of the training name the steps and the ids of "
        "their images.",
        docs="docs/report.md#steps-that-are-not-finite",
    )


def probe_falls(facts: RunFacts) -> Finding | None:
    """The newest probe is below the best one."""
    records = facts.records
    for key, name in PROBES.items():
        values = records.values(key)
        if not known(values):
            continue
        best, newest = max(known(values)), last(values)
        assert newest is not None
        if best - newest > PROBE_FALL:
            epoch = max(e for e, v in zip(records.epochs, values, strict=True) if v == best)
            return Finding(
                title="The probe has fallen",
                numbers=f"{name} was {best:.2f} % in epoch {epoch} and is {newest:.2f} % now.",
                rule=f"the last probe is more than {PROBE_FALL} points below the best one",
                remedy=f"evaluate and export the checkpoint of epoch {epoch} (--epoch {epoch}), "
                "which is kept. If the probe falls while the loss does too, the clusters follow "
                "something that is not the class: look at the gallery, and make views differ "
                "more (docs/augmentation.md).",
                docs="docs/report.md#falling-probe",
            )
    return None


def below_baseline(facts: RunFacts) -> Finding | None:
    """An evaluation in which a baseline is as good."""
    newest = max((e.epoch or 0 for e in facts.evaluations), default=0)
    for evaluation in facts.evaluations:
        if (evaluation.epoch or 0) < newest:
            continue
        best = evaluation.best_baseline()
        if best is not None and evaluation.top1 is not None and evaluation.top1 <= best[1]:
            return Finding(
                title="A baseline is as good",
                numbers=f"{evaluation.title}: {evaluation.top1:.2f} % for this run, "
                f"{best[1]:.2f} % for {best[0]}.",
                rule="an evaluation of the newest epoch has a baseline that is not below the run",
                remedy="train longer. On small or aligned images raw pixels are hard to beat in "
                "k-NN; a linear classifier tells more.",
                docs="docs/report.md#below-a-baseline",
            )
    return None


def data_wait(facts: RunFacts) -> Finding | None:
    """The loader limits training."""
    waits = known(facts.records.trained.values("data_wait"))
    if not waits or (wait := statistics.median(waits)) <= DATA_WAIT:
        return None
    return Finding(
        title="Training waits for data",
        numbers=f"In the median epoch {wait:.0%} of the time was spent waiting for the loader.",
        rule=f"the median share of waiting is above {DATA_WAIT:.0%}",
        remedy="run coke bench-epoch on this data: it names the stage of the loader that limits, "
        "and the settings that are most likely to help.",
        docs="docs/report.md#waiting-for-data",
    )


def slows_down(facts: RunFacts) -> Finding | None:
    """The last epoch was slow."""
    rates = known(facts.records.trained.values("images_per_second"))
    if len(rates) < SETTLED_EPOCH or rates[-1] >= SLOW * statistics.median(rates):
        return None
    if facts.config.data.start_size:  # views grow during the run, so that speed falls by design
        return None
    return Finding(
        title="The last epoch was slow",
        numbers=f"It made {rates[-1]:,.0f} img/s, the median epoch "
        f"{statistics.median(rates):,.0f}.",
        rule=f"the last epoch is below {SLOW:.0%} of the speed of the median one",
        remedy="look at what else runs on the machine, at its temperature, and at the disk.",
        docs="docs/report.md#slow-epochs",
    )


def memory(facts: RunFacts) -> Finding | None:
    """More memory than the budget."""
    peak, budget = last(facts.records.values("peak_memory")), facts.config.machine.memory_budget
    if not peak or not budget or peak <= parse_bytes(budget):
        return None
    return Finding(
        title="The memory budget was not kept",
        numbers=f"The peak was {show_bytes(peak)}, the budget {budget}.",
        rule="the peak is above machine.memory_budget",
        remedy="lower data.batch_size, or set optimizer.accumulate or "
        "machine.checkpoint_activations.",
        docs="docs/report.md#memory",
    )
