import json

from serving.onnx_session import OnnxSession


class Model:
    def __init__(self, artifacts):
        self.session = OnnxSession(artifacts / "rent.onnx")
        self.error = json.loads((artifacts / "error.json").read_text())

    def predict(self, columns):
        rent = self.session.run(columns)["rent"].ravel()
        return {"rent": rent, "low": rent - self.error, "high": rent + self.error}
