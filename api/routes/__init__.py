"""One file per resource: each handler parses, calls the store once and answers."""

from api.routes import (
    changes,
    checkpoints,
    comparison,
    completions,
    files,
    graders,
    health,
    jobs,
    keys,
    metrics,
    models,
    platform,
    records,
    rollouts,
)

ALL_ROUTES = (
    health.router,
    files.router,
    models.router,
    graders.router,
    jobs.router,
    changes.router,
    metrics.router,
    comparison.router,
    records.router,
    rollouts.router,
    checkpoints.router,
    completions.router,
    keys.router,
    platform.router,
)
