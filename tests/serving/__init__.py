"""Tests of what the template serves, for several contracts and without a trained model."""
