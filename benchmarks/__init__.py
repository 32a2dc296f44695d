"""What the generated repository costs to run and to release, measured next to its peers: `make bench`."""
