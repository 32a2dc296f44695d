"""Patches that make the emulator behave as AWS documents, one module a service, each applied by `__main__`.

Every patch stands for one AWS behaviour, named in its comment, and has a test in `tests/emulator` that fails
without it.
"""
