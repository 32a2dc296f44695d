"""The report's view of the data: the mean picture of each class."""

import pandas as pd
from matplotlib.figure import Figure

from model_code.data import FEATURES, LABEL
from model_code.schema import HEIGHT, WIDTH

TITLE = "Mean picture of each class"


def draw(table: pd.DataFrame) -> Figure:
    """Return one picture a class."""
    means = table.groupby(LABEL)[FEATURES].mean()
    figure = Figure(figsize=(10, 2.2 * ((len(means) + 4) // 5)), layout="constrained")
    axes = list(figure.subplots((len(means) + 4) // 5, 5, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    for axis, (label, mean) in zip(axes, means.iterrows(), strict=False):
        axis.imshow(mean.to_numpy().reshape(HEIGHT, WIDTH), cmap="gray")
        axis.set_title(str(label))
    return figure
