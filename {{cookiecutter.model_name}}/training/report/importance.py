"""The report's box on which features matter: how much worse the first metric gets when one is shuffled."""

import time
from typing import Any

import numpy as np

from training import gate
from training.declared import Declared
from training.fitted import called
from training.report import charts
from training.report.markup import panel
from training.report.result import Result

REPEATS = 5
MOST_FEATURES = 20
SECONDS = 15.0
SEED = 0


def box(result: Result, declared: Declared, model: Any) -> str:
    """Return the permutation importance of each feature; empty where there is only one, or it takes too long.

    Source: L. Breiman, Random Forests (2001), section 10.
    """
    fields = result.contract.inputs
    if len(fields) < 2 or not result.metrics:
        return ""
    metric = result.metrics[0]
    started = time.monotonic()
    called(lambda it: declared.evaluate(model, it), result.test)
    seconds = time.monotonic() - started
    repeats = min(REPEATS, int(SECONDS / max(seconds * len(fields), 1e-9)))
    if not repeats:
        return ""
    generator = np.random.default_rng(SEED)
    found = []
    for field in fields:
        changes = []
        for _ in range(repeats):
            order = generator.permutation(len(result.test))
            cells = result.test[field.name].iloc[order].set_axis(result.test.index)
            shuffled = result.test.assign(**{field.name: cells})
            value = gate.checked_metrics(called(lambda it: declared.evaluate(model, it), shuffled))[metric.name]
            changes.append(metric.held_out - value)
        found.append((field.key, np.array(changes)))
    if metric.at_most is not None:
        found = [(name, -changes) for name, changes in found]
        meaning = f"rise of {metric.name} when the feature is shuffled"
    elif metric.at_least is not None:
        meaning = f"fall of {metric.name} when the feature is shuffled"
    else:
        found = [(name, np.abs(changes)) for name, changes in found]
        meaning = f"change of {metric.name} when the feature is shuffled"
    ranked = sorted(found, key=lambda it: -it[1].mean())
    rows = [(name, float(changes.mean()), float(changes.std())) for name, changes in ranked[:MOST_FEATURES]]
    note = f"Mean of {repeats} shuffles of the held-out rows; the line is their standard deviation."
    if repeats < REPEATS:
        note += " More would take too long."
    if len(ranked) > MOST_FEATURES:
        note += f" The {MOST_FEATURES} of {len(ranked)} features that matter most."
    return panel("Which features matter", charts.bars("Permutation importance", rows, meaning), note)
