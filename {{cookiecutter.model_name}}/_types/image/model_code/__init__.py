"""The model: its schema, its data, its training and its predictions. This folder is yours."""
