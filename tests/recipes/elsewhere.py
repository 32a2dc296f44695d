"""Trains flowers somewhere else and writes an ONNX file, whose path is the only argument."""

import sys
from pathlib import Path

from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

iris = load_iris()
model = LogisticRegression(max_iter=1000).fit(iris.data[::2], iris.target[::2])
graph = to_onnx(model, iris.data[:1].astype("float32"), options={"zipmap": False})
del graph.graph.output[0]
Path(sys.argv[1]).write_bytes(graph.SerializeToString())
