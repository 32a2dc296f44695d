"""Parcels that nobody has sent: the same ones for the same seed."""

from typing import get_args

import numpy as np
import pandas as pd

from model_code.schema import Carrier, Service

MISSING = 0.1
PLACES = [f"{first} {second}" for first in ("Old", "New", "Upper", "Lower", "North") for second in (
    "Ashford", "Brookton", "Clayburn", "Dunmere", "Elmstead", "Fernhill"
)]  # fmt: skip


def load() -> pd.DataFrame:
    """Return parcels to train on."""
    return parcels(4000, seed=0)


def parcels(rows: int, seed: int) -> pd.DataFrame:
    """Return `rows` parcels and, as `label`, what became of them; a tenth of all cells is missing."""
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "weight": np.round(random.gamma(2, 2, rows) + 0.1, 2),
            "volume": np.round(random.gamma(2, 10, rows) + 0.1, 1),
            "distance": np.round(random.uniform(1, 1500, rows), 1),
            "value": np.round(random.gamma(1, 80, rows), 2),
            "pieces": random.integers(1, 9, rows),
            "hour": random.integers(0, 24, rows),
            "carrier": random.choice(get_args(Carrier), rows),
            "service": random.choice(get_args(Service), rows),
            "origin": random.choice(PLACES, rows),
            "destination": random.choice(PLACES, rows),
        }
    )
    risk = table["distance"] / 250 + (table["hour"] > 15) * 2 + (table["carrier"] == "by foot") * 3
    risk += (table["service"] == "economy") * 1.5 + table["origin"].str.startswith("North") * 1.5
    late = risk + random.logistic(0, 1, rows) > 6
    table = table.astype({"pieces": "Int64", "hour": "Int64"}).mask(random.random(table.shape) < MISSING)
    return table.assign(label=np.where(late, "late", "on time"))
