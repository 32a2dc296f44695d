"""Where the training data comes from: a table with a column for each field of `Instance`, and the truth, `label`."""

import pandas as pd
from sklearn.datasets import load_iris


def load() -> pd.DataFrame:
    """Return Fisher's iris data: 150 rows, four measures in cm, and the species as text.

    Source: R. A. Fisher, The use of multiple measurements in taxonomic problems (1936), as shipped with
    scikit-learn.
    """
    iris = load_iris(as_frame=True)
    table = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    return table.assign(label=[str(iris.target_names[number]) for number in iris.target])
