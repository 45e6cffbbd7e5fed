"""The Django project: settings, URLs, ASGI, Celery, the serve command's wiring and the sandbox upstream."""

__version__ = "0.1.0"
