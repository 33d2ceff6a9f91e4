"""The section of advice: what looks wrong in a run's own numbers, and what to try next.

``docs/report.md`` explains each rule under the heading that its finding names.
"""

from __future__ import annotations

from collections.abc import Callable

from coke.tools.page import clustering_rules, training_rules
from coke.tools.page.content import Finding, Section
from coke.tools.page.run_facts import RunFacts

Rule = Callable[[RunFacts], Finding | None]

#: The gravest first.
RULES: tuple[Rule, ...] = (
    clustering_rules.collapse,
    training_rules.not_finite,
    clustering_rules.loss_at_chance,
    clustering_rules.empty,
    clustering_rules.giant,
    clustering_rules.violation,
    clustering_rules.churn,
    training_rules.probe_falls,
    clustering_rules.low_rank,
    training_rules.below_baseline,
    training_rules.data_wait,
    training_rules.slows_down,
    training_rules.memory,
)


def advice_section(facts: RunFacts) -> Section:
    """What the rules find, the gravest first."""
    found = findings(facts)
    title = "What to try next"
    if found:
        return Section(title=title, findings=found)
    if not facts.records.trained.lines:
        return Section(title=title, lines=["No epoch of training has ended yet."])
    line = (
        f"None of {len(RULES)} rules about the numbers of a run applies. docs/report.md has the "
        "rules, and what to look for in the pictures."
    )
    return Section(title=title, lines=[line])


def findings(facts: RunFacts) -> list[Finding]:
    """What the rules find."""
    return [finding for rule in RULES if (finding := rule(facts)) is not None]
