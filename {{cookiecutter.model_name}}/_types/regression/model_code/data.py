"""Where the training data comes from: a table with a column for each field of `Instance`, and `progression`."""

import pandas as pd
from sklearn.datasets import load_diabetes

# What the data set calls the columns whose names say little.
NAMES = {
    "bp": "blood_pressure",
    "s1": "cholesterol",
    "s2": "ldl",
    "s3": "hdl",
    "s4": "cholesterol_ratio",
    "s5": "log_triglycerides",
    "s6": "glucose",
    "target": "progression",
}


def load() -> pd.DataFrame:
    """Return 442 patients with diabetes: ten measures, and the progression of the disease one year later.

    Source: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Least Angle Regression (2004), as shipped with
    scikit-learn.
    """
    return load_diabetes(scaled=False, as_frame=True).frame.rename(columns=NAMES)
