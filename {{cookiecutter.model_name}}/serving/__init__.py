"""From an event to an answer: requests over HTTP, files in S3 and schedules, all derived from `model_code`."""
