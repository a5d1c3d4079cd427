"""One file per resource: each handler parses, calls the store once and answers."""

from api.routes import changes, checkpoints, files, health, jobs, metrics, models, rollouts

ALL_ROUTES = (
    health.router,
    files.router,
    models.router,
    jobs.router,
    changes.router,
    metrics.router,
    rollouts.router,
    checkpoints.router,
)
