"""Whether this machine can feed the trackers that a job names: looked at before anything is claimed, without the network."""

import importlib.util
import netrc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from sdjob.core.errors import DeniedError, UnavailableError, UsageError

WandbMode = Literal["online", "offline", "disabled"]
# What WANDB_MODE may say (wandb/sdk/wandb_settings.py); dryrun and run are older names.
MODES: dict[str, WandbMode] = {
    "": "online",
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
WANDB_URL = "https://api.wandb.ai"


def check_access(track: Sequence[str], *, environment: Mapping[str, str]) -> None:
    """UnavailableError where a package is missing, DeniedError where Weights & Biases would ask for a key."""
    for name in track:
        if importlib.util.find_spec(name) is None:
            raise UnavailableError(
                f"the package {name} is not installed here.", where="track", next_step="Run: pip install 'sdjob[track]'."
            )
    if "wandb" in track and wandb_mode(environment) == "online" and not has_wandb_key(environment):
        raise DeniedError(
            "Weights & Biases is to be told of this run, but there is no API key for it here.",
            where="track",
            next_step="Set WANDB_API_KEY (or run `wandb login`), or set WANDB_MODE=offline: "
            "then the run is kept under checkpoint.to, and `wandb sync` sends it whenever you like.",
        )


def wandb_mode(environment: Mapping[str, str]) -> WandbMode:
    spoken = environment.get("WANDB_MODE", "")
    if spoken not in MODES:
        allowed = ", ".join(name for name in MODES if name)
        raise UsageError(f"the variable WANDB_MODE is {spoken!r}; allowed: {allowed}.", where="track")
    return MODES[spoken]


def has_wandb_key(environment: Mapping[str, str]) -> bool:
    """Where wandb itself looks: its variables, then the netrc file, in which `wandb login` leaves the key."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL") or WANDB_URL).netloc
    try:
        entry = netrc.netrc(netrc_file(environment)).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return False
    return entry is not None and bool(entry[2])


def netrc_file(environment: Mapping[str, str]) -> Path:
    if named := environment.get("NETRC"):
        return Path(named).expanduser()
    home = Path(environment.get("HOME") or "~").expanduser()
    files = [home / ".netrc", home / "_netrc"]
    return next((file for file in files if file.exists()), files[0])
