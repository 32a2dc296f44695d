"""Trains iris flowers with LightGBM and writes an ONNX file, whose address is the only argument."""

import sys
from pathlib import Path

from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

iris = load_iris()
names = iris.target_names[iris.target]
features, _, labels, _ = train_test_split(iris.data, names, test_size=0.3, random_state=0, stratify=names)
model = LGBMClassifier(n_estimators=30, max_depth=3, random_state=0, n_jobs=1, verbose=-1).fit(features, labels)
exported = convert_lightgbm(model, initial_types=[("input", FloatTensorType([None, 4]))], zipmap=False)
Path(sys.argv[1]).write_bytes(exported.SerializeToString())
