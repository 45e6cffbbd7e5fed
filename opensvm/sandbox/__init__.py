"""A small, faithful OpenRouter on loopback, for `bin/serve --sandbox` and for every test.

No model is asked and no money is spent; it is labelled "OpenSVM Sandbox" everywhere it shows. Nothing here
imports Django. `python -m opensvm.sandbox` runs it, `opensvm.sandbox.thread.SandboxServer` runs it inside a test.
"""
