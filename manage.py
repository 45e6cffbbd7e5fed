#!/usr/bin/env python3
"""Django's command line for this project; `manage.py serve` runs the service."""

import sys

from opensvm import bootstrap

if __name__ == "__main__":
    bootstrap.continue_in_venv(sys.argv)
    from opensvm.command_line import main

    sys.exit(main(sys.argv))
