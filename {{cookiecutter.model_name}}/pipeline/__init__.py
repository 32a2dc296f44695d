"""What the workflow runs: infrastructure, release and smoke test, with boto3. `python -m pipeline --help`."""
