"""Tests of files in S3 and of schedules, for several contracts and without a trained model."""
