"""From an event to an answer: knows the model only through `model_code.schema` and `model_code.predict`."""
