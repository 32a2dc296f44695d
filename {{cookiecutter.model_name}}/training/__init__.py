"""Training, the template's part of it: split, gate, export and its proof, model card, report; calls model_code."""
