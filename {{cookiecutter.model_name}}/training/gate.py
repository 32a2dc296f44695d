"""The gate: a model whose metrics miss a threshold of model_code/train.py is never built into an image."""

import math
from collections.abc import Mapping
from typing import Any

from training.declared import TrainingError


def checked_metrics(found: Any) -> dict[str, float]:
    """Return what `evaluate` returned as plain numbers. Raises TrainingError where it isn't a dict of numbers."""
    try:
        return {str(name): float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise TrainingError(
            f"evaluate() in model_code/train.py returned {str(found)[:100]}: return a dict of names and numbers."
        ) from None


def missed(metrics: Mapping[str, float], at_least: Mapping[str, float], at_most: Mapping[str, float]) -> list[str]:
    """Return a sentence for each metric that misses its threshold. Raises TrainingError for an unknown metric."""
    if unknown := [name for name in (*at_least, *at_most) if name not in metrics]:
        raise TrainingError(
            f"AT_LEAST and AT_MOST in model_code/train.py name the metric `{unknown[0]}`, which evaluate() doesn't "
            f"return (it returns {', '.join(metrics) or 'nothing'}): correct the name, or return it."
        )
    return [
        f"{name} is {shown(metrics[name])}, must be {words} {limit:g}"
        for words, limits in (("at least", at_least), ("at most", at_most))
        for name, limit in limits.items()
        if not passes(metrics[name], limit, at_most=limits is at_most)
    ]


def passes(value: float, limit: float, *, at_most: bool) -> bool:
    """Return whether a metric is on the right side of its threshold; what isn't a number never is."""
    return not math.isnan(value) and (value <= limit if at_most else value >= limit)


def shown(value: float) -> str:
    """Return a metric as people read it."""
    return f"{value:z.4f}" if abs(value) < 1000 else f"{value:,.1f}"
