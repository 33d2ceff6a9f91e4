"""Each rule speaks where it should, and is silent beside its threshold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coke.config.config import Config
from coke.tools.page.advice import RULES, advice_section, findings
from coke.tools.page.content import Finding
from coke.tools.page.evaluations import Evaluation
from coke.tools.page.run_facts import RunFacts
from coke.tools.page.run_records import RunRecords
from tests.support.made_run import head, record

ROOT = Path(__file__).parents[3]
IMAGES = 1000


def facts(
    *last: dict[str, Any],
    config: Config | None = None,
    evaluations: tuple[Evaluation, ...] = (),
    **changes: Any,
) -> RunFacts:
    """A run of the scan and three epochs; ``last`` are the heads of the last one."""
    plain = [head(10, IMAGES), head(50, IMAGES)]
    lines = [record(epoch, plain, IMAGES) for epoch in range(3)]
    lines.append(record(3, [*last] or plain, IMAGES, **changes))
    records = RunRecords(lines=lines, count=IMAGES)
    return RunFacts(records=records, config=config or Config(), evaluations=evaluations)


def found(given: RunFacts) -> list[Finding]:
    return findings(given)


def evaluation(epoch: int, own: float, other: float) -> Evaluation:
    rows = {"raw pixels": {"top1": other}, "random initialisation": {"top1": 1.0}}
    return Evaluation(method="knn", epoch=epoch, tested_on="", rows=rows | {"CoKe": {"top1": own}})


BUDGET = Config().changed(machine={"memory_budget": "1GiB"})
PAPER = Config().changed(clustering={"dual_rule": "paper"})
GROWING = Config().changed(data={"start_size": 96})


@pytest.mark.parametrize(
    ("given", "title", "numbers"),
    [
        (facts(head(10, IMAGES, largest=501)), "has collapsed", "K=10 holds 501 of 1,000"),
        (facts(head(50, IMAGES, largest=201)), "is a giant", "201 images, 10.1 times the mean"),
        (facts(head(50, IMAGES, empty=2)), "are empty", "2 of the 50 clusters"),
        (facts(head(50, IMAGES, violation=0.11)), "is not kept", "K=50 is 11% beyond"),
        (facts(head(50, IMAGES, churn=0.951)), "as if at random", "95.1% of the images"),
        (facts(loss_over_chance=0.981), "stays at chance", "0.98 of ln K"),
        (facts(loss=float("nan"), loss_over_chance=None), "not finite", "Epoch 3: loss is nan"),
        (facts(skipped_steps=4), "not finite", "4 steps were skipped"),
        (facts(projected_rank=6.0), "few dimensions", "is 6.0; the projector has 128"),
        (facts(peak_memory=2**30 + 1, config=BUDGET), "budget was not kept", "budget 1GiB"),
        (facts(images_per_second=299.0), "was slow", "299 img/s, the median epoch 500"),
        (facts(evaluations=(evaluation(3, 50.0, 50.0),)), "baseline", "50.00 % for raw pixels"),
    ],
)
def test_a_rule_speaks_with_the_numbers(given: RunFacts, title: str, numbers: str) -> None:
    (finding,) = found(given)
    assert title in finding.title and numbers in finding.numbers


@pytest.mark.parametrize(
    "given",
    [
        facts(),
        facts(head(10, IMAGES, largest=500)),
        facts(head(50, IMAGES, largest=200)),
        facts(head(50, IMAGES, violation=0.1)),
        facts(head(50, IMAGES, churn=0.9506)),
        facts(loss_over_chance=0.98),
        facts(projected_rank=6.4),
        facts(peak_memory=2**30, config=BUDGET),
        facts(images_per_second=300.0),
        facts(images_per_second=100.0, config=GROWING),
        facts(evaluations=(evaluation(2, 10.0, 50.0), evaluation(3, 50.1, 50.0))),
    ],
)
def test_a_rule_is_silent_beside_its_threshold(given: RunFacts) -> None:
    assert found(given) == []


def test_waiting_is_that_of_the_median_epoch_and_the_scan_does_not_count() -> None:
    heads = [head(10, IMAGES)]
    lines = [
        record(epoch, heads, IMAGES, data_wait=wait)
        for epoch, wait in enumerate((0.9, 0.1, 0.21, 0.3))
    ]
    (finding,) = found(RunFacts(records=RunRecords(lines=lines, count=IMAGES), config=Config()))
    assert "21% of the time" in finding.numbers
    lines[2] |= {"data_wait": 0.2}
    assert found(RunFacts(records=RunRecords(lines=lines, count=IMAGES), config=Config())) == []


def test_a_probe_that_falls_names_the_best_epoch() -> None:
    heads = [head(10, IMAGES)]
    lines = [
        record(epoch, heads, IMAGES, probe=probe)
        for epoch, probe in enumerate((30.0, 45.5, None, 44.0))
    ]
    (finding,) = found(RunFacts(records=RunRecords(lines=lines, count=IMAGES), config=Config()))
    assert "45.50 % in epoch 1 and is 44.00 % now" in finding.numbers
    assert "--epoch 1" in finding.remedy


def test_the_first_epochs_may_be_near_chance() -> None:
    heads = [head(50, IMAGES, churn=0.98)]
    lines = [record(epoch, heads, IMAGES, loss_over_chance=1.0) for epoch in range(3)]
    assert found(RunFacts(records=RunRecords(lines=lines, count=IMAGES), config=Config())) == []


def test_remedies_fit_the_settings() -> None:
    views = replace(Config(), data=replace(Config().data, views=2))
    (finding,) = found(facts(loss_over_chance=1.0, config=views))
    assert "alpha_warmup" in finding.remedy
    (finding,) = found(facts(loss_over_chance=1.0))
    assert "alpha_warmup" not in finding.remedy
    (finding,) = found(facts(head(50, IMAGES, violation=0.5), config=PAPER))
    assert "dual_rule=auto" in finding.remedy
    (finding,) = found(facts(head(50, IMAGES, violation=0.5)))
    assert "dual_rule" not in finding.remedy


def test_silence_says_what_it_is_and_findings_are_shown() -> None:
    quiet = advice_section(facts())
    assert not quiet.findings and f"None of {len(RULES)} rules" in quiet.lines[0]
    loud = advice_section(facts(head(10, IMAGES, largest=900), skipped_steps=1))
    assert [f.title for f in loud.findings] == [
        "The clustering has collapsed",
        "Steps were not finite",
    ]


def test_every_rule_is_explained_where_its_finding_says() -> None:
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        for title in re.findall(r"^### (.+)$", page, re.MULTILINE)
    }
    code = "".join(
        (ROOT / "coke" / "tools" / "page" / f"{name}_rules.py").read_text(encoding="utf-8")
        for name in ("clustering", "training")
    )
    named = re.findall(r'docs="docs/report\.md#([a-z0-9-]+)"', code)
    assert len(named) == len(RULES) and set(named) == anchors
