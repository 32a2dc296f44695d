"""Where the training data comes from: a table with a column for each field of `Instance`, and the truth, `category`."""

from pathlib import Path

import pandas as pd


def load() -> pd.DataFrame:
    """Return the messages of messages.csv, each with its category; MESSAGES.md says where they come from."""
    return pd.read_csv(Path(__file__).with_name("messages.csv"), keep_default_na=False)
