"""When the frozen encoders run: once before the training, or at every step."""

from sdjob.spec.job import JobSpec


def pictures_run_once(job: JobSpec) -> bool:
    """As far as the job file tells: at random crops the pictures themselves decide, and at most they let it be true."""
    if job.train.cache == "auto":
        return job.data.crop == "center"
    return job.train.cache == "always"


def captions_run_once(job: JobSpec) -> bool:
    """Beside the pictures; a text encoder that is trained runs at every step."""
    return pictures_run_once(job) and job.train.text_encoder == "frozen"
