"""The HTTP API, as API Gateway (REST and HTTP API), function URLs and direct invocations call it."""
