"""Files in S3: from a file of instances to one of predictions, whole or not at all. `handler.answer` begins."""
