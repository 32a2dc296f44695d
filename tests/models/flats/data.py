from pathlib import Path

import pandas as pd
from model_code.schema import NAMES


def load():
    table = pd.read_csv(Path(__file__).with_name("flats.csv"))
    return table.rename(columns={key: name for name, key in NAMES.items()})
