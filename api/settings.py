"""What the operator sets, read from `STAPO_*` variables and, in containers, from files under /run/secrets."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_SECRETS = Path("/run/secrets")


class Settings(BaseSettings):
    """Settings of the API and the worker. `STAPO_HOME` and the two URLs have no default: the launcher sets them."""

    model_config = SettingsConfigDict(
        env_prefix="STAPO_",
        secrets_dir=_SECRETS if _SECRETS.is_dir() else None,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    home: Path
    """The state folder: uploaded files, base models, run directories, artifacts, the first API key."""
    database_url: str
    """Postgres, as `postgresql+psycopg://user:password@host/database`."""
    broker_url: str
    """Valkey or Redis, as `redis://…` or `redis+socket:///path`."""

    cors_origins: str = ""
    """Origins whose pages may call the API from a browser, separated by commas: the dashboard's addresses."""
    ticket_s: float = Field(default=3600.0, gt=0)
    """Seconds for which a stream ticket opens a job's streams and downloads to a browser."""
    stream_poll_s: float = Field(default=0.5, gt=0)
    """Seconds between looks at the database for all streams of one API process together."""
    max_upload_bytes: int = Field(default=512 * 2**20, ge=1)
    """The largest file that may be uploaded."""
    rate_limit: str = "6000/minute"
    """Requests that one API key may make, per API process, such as `100/second`; empty for no limit."""
    refused_limit: str = "300/minute"
    """Requests without a good key that one address may make, per API process; empty for no limit."""
    max_live_jobs: int = Field(default=1000, ge=1)
    """Jobs of one tenant that have not ended."""
    max_streams: int = Field(default=2000, ge=1)
    """Streams that one tenant may hold open, per API process."""
    max_stored_bytes: int = Field(default=2**40, ge=1)
    """Bytes of uploaded files that one tenant may keep."""
    user_code: Literal["off", "sandboxed"] = "off"
    """Whether graders may run foreign programs (`python`, `code`), in the sandbox; set it for the workers too."""
    judges_file: Path | None = None
    """A JSON list of the models that `score_model` graders may ask, by name; set it for the workers too."""
    max_rollout_bytes: int = Field(default=2**34, ge=0)
    """Bytes of recorded responses that one job keeps; the oldest steps without a pinned response go first."""
    completion_wait_s: float = Field(default=120.0, gt=0)
    """Seconds that a request for a completion waits for a sign of life from the worker that answers it."""
    warm_models: int = Field(default=2, ge=1)
    """Models that one worker keeps loaded for completions; the one that was not asked for longest makes room."""
    lease_s: float = Field(default=60.0, gt=0)
    """A worker that is silent for this long has lost its job."""
    heartbeat_s: float = Field(default=10.0, gt=0)
    """Seconds between renewals of the lease."""
    poll_s: float = Field(default=0.5, gt=0)
    """Seconds between looks at the spool and at the job's row."""
    sweep_s: float = Field(default=5.0, gt=0)
    """Seconds between sweeps for claimable jobs and lapsed leases."""
    cancel_grace_s: float = Field(default=20.0, gt=0)
    """Seconds a trainer has to save and leave after SIGTERM before it is killed."""
    max_attempts: int = Field(default=5, ge=1)
    """Attempts in a row without progress after which a job fails."""
    backoff_s: float = Field(default=2.0, ge=0)
    """Wait before the second attempt; it doubles with every further one without progress, up to a minute."""
    worker_slots: int = Field(default=1, ge=1)
    """Jobs one worker runs at a time; one per GPU."""
    stall_s: float = Field(default=3600.0, gt=0)
    """Seconds without a word from a trainer after which it is killed and tried again."""
    drain_s: float = Field(default=60.0, gt=0)
    """Seconds a worker that is told to stop leaves its trainers to save."""

    @property
    def allows_user_code(self) -> bool:
        """Whether graders may run foreign programs."""
        return self.user_code == "sandboxed"

    @property
    def files_dir(self) -> Path:
        """Uploaded files, one per id."""
        return self.home / "files"

    @property
    def models_dir(self) -> Path:
        """Base models, one Hugging Face folder per name."""
        return self.home / "models"

    @property
    def runs_dir(self) -> Path:
        """Run directories, one per job id."""
        return self.home / "runs"

    @property
    def artifacts_dir(self) -> Path:
        """Downloadable checkpoints, `<job id>/step-<n>`."""
        return self.home / "artifacts"

    @property
    def first_key_path(self) -> Path:
        """Where the first API key is written, readable by its owner alone."""
        return self.home / "api_key"


@cache
def get_settings() -> Settings:
    """Reads the settings once per process."""
    return Settings()
