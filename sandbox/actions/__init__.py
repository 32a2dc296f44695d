"""Stand-ins for the actions that generated workflows use; each `action.yml` says what its stand-in doesn't do."""
