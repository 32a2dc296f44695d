"""What the generated repository costs to run and to release, measured beside its peers: `make bench`."""
