"""Where training data comes from: a table with one column a feature of `schema.Instance`, and `label`."""

import pandas as pd
from sklearn.datasets import load_iris

from model_code.schema import Instance

LABEL = "label"
FEATURES = list(Instance.__struct_fields__)


def load() -> pd.DataFrame:
    """Return Fisher's iris data: 150 rows, four measures in cm, and the species as text.

    Source: R. A. Fisher, The use of multiple measurements in taxonomic problems (1936), as shipped with
    scikit-learn.
    """
    iris = load_iris(as_frame=True)
    table: pd.DataFrame = iris.data.rename(columns=lambda name: name.removesuffix(" (cm)").replace(" ", "_"))
    return table.assign(**{LABEL: iris.target.map(dict(enumerate(iris.target_names))).astype(str)})
