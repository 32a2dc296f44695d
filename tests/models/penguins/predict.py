from serving.onnx_session import OnnxSession


class Model:
    def __init__(self, artifacts):
        self.session = OnnxSession(artifacts / "model.onnx")

    def predict(self, columns):
        return self.session.run(columns)
