"""The only room with SQL: tables and the questions asked of them. It imports no FastAPI and no Celery."""
