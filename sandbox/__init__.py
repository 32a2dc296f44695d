"""AWS and GitHub on one machine: what `make demo` and the tests run the generated repository against."""
