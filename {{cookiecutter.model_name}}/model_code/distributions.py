"""The report's view of the data: the distribution of each feature by class."""

import pandas as pd
from matplotlib.figure import Figure

from model_code.data import FEATURES, LABEL

TITLE = "Distribution of each feature"


def draw(table: pd.DataFrame) -> Figure:
    """Return one histogram a feature, stacked by class."""
    groups = dict(list(table.groupby(LABEL)))
    figure = Figure(figsize=(10, 2.8 * ((len(FEATURES) + 1) // 2)), layout="constrained")
    axes = figure.subplots((len(FEATURES) + 1) // 2, 2, squeeze=False).flat
    for axis, feature in zip(axes, FEATURES, strict=False):
        axis.hist([group[feature] for group in groups.values()], bins=20, stacked=True, label=list(groups))
        axis.set_title(feature)
    axes[0].legend()
    for unused in list(axes)[len(FEATURES) :]:
        unused.remove()
    return figure
