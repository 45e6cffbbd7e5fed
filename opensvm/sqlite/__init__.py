"""Django's SQLite backend, with one writer at a time over all processes; see `base`."""
