"""`manage.py serve`: one-shot steps, then the web processes, the Celery worker and beat as one supervised group."""
