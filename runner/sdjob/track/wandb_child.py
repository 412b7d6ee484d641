"""Weights & Biases' library in a process of its own: its threads, hooks and service can neither delay nor end a run.

The parent says `start`, then `row` for each step, `sync` to have all of it on disk, `finish`; this side answers `open`,
`synced`, `finished`, or `failed` with what the library said. It dies with its parent, and the library's service with it.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdjob.core.channel import Channel, Message, inherited_channel

FLUSH_S = 1.0  # how often the service writes what it has to its file
PREEMPTED = 1  # an exit code: the run goes on later


def main() -> int:
    channel = inherited_channel()
    assert channel is not None, "started by the tracker alone"
    messages = iter(channel)
    start = next(messages)
    keep_quiet(Path(start["folder"]) / "wandb.log")
    try:
        serve(start, messages=messages, channel=channel)
    except Exception as error:
        channel.send({"event": "failed", "what": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def keep_quiet(file: Path) -> None:
    """What the library and its service print is no part of the run's output."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())


def serve(start: Message, *, messages: Iterator[Message], channel: Channel) -> None:
    run = begin(start)
    through = max(0, run.starting_step - 1) if run.resumed else 0
    channel.send({"event": "open", "through": through, "folder": run.settings.sync_dir, "url": run.url})
    for message in messages:
        match message["event"]:
            case "row":
                log_row(run, message)
            case "sync":
                time.sleep(2 * FLUSH_S)
                channel.send({"event": "synced"})
            case "finish":
                end(run, summary=message["summary"])
                channel.send({"event": "finished"})
                return
            case unknown:
                raise ValueError(f"the parent said {unknown}")


def begin(start: Message) -> Any:
    import wandb

    return wandb.init(config=start["config"], settings=settings(start))


def settings(start: Message) -> Any:
    """Nothing of this machine, of its working directory or of the console is told to anybody."""
    import wandb

    offline = start["mode"] == "offline"
    return wandb.Settings(
        mode=start["mode"],
        run_id=start["run_id"],
        run_name=start["name"],
        project=start["project"],
        # An offline file holds the whole run: sent again, longer, it replaces what was sent before.
        resume=None if offline else "allow",
        root_dir=start["folder"],
        use_dot_wandb=False,
        symlink=False,
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        username="",
        email="",
        program="",
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_transaction_log_flush_interval=FLUSH_S,
    )


def log_row(run: Any, row: Message) -> None:
    import wandb

    values: dict[str, Any] = {**row["values"], "_timestamp": row["time_s"]}
    if row["pictures"]:
        values["validation"] = [wandb.Image(each["path"], caption=each["prompt"]) for each in row["pictures"]]
    run.log(values, step=row["step"], commit=True)
    for each in row["pictures"]:
        Path(each["path"]).unlink()


def end(run: Any, *, summary: dict[str, Any] | None) -> None:
    import wandb

    if summary is None:
        run.mark_preempting()
    else:
        run.summary.update(summary)
    code = PREEMPTED if summary is None else 0
    run.finish(exit_code=code)
    wandb.teardown(exit_code=code)  # an offline file is whole once the service is gone, and not before


if __name__ == "__main__":
    sys.exit(main())
