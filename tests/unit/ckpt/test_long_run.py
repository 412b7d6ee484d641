"""What the holder of a run that goes on for weeks keeps in memory."""

import gc

from fakes.memory_store import MemoryStore
from fakes.runs import commit_log, snapshot
from sdjob.ckpt.manifest import Manifest


def test_of_pruned_commits_no_manifest_is_kept(tmp_path):
    log = commit_log(MemoryStore(), keep=2)
    log.claim(attempt="1", host="pod-a")
    gc.collect()
    before = sum(type(thing) is Manifest for thing in gc.get_objects())
    for step in range(1, 21):
        log.commit(snapshot(tmp_path / "states", step=step), step=step, facts={"loss": 0.5})
        log.prune()
    gc.collect()
    kept = sum(type(thing) is Manifest for thing in gc.get_objects()) - before
    assert 2 <= kept <= 3, "the live ones, and the one that the last prune has retired"
