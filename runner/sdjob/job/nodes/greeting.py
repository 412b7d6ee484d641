"""What a node says when it comes to node 0, and whether it belongs there. Pure."""

import hashlib
import json
from typing import Any

from sdjob import __version__
from sdjob.core.channel import Message
from sdjob.job.nodes.node import Node
from sdjob.spec.job import JobSpec

LONGEST_WORDS = 2000
# Where a node's own files lie, and what node 0 alone does; that the contents are equal is seen once they are there.
OF_A_NODE: dict[str, Any] = {
    "model": {"source", "vae"},
    "data": {"source", "prior"},
    "train": {"init_from"},
    "checkpoint": {"to"},
    "run": {"scratch", "kubernetes", "workers", "notice_s", "max_hours", "spot"},
    "publish": True,
    "track": True,
}


def job_key(job: JobSpec) -> str:
    """The same on all nodes of a gang; another job's is another."""
    text = json.dumps(job.model_dump(mode="json", exclude=OF_A_NODE), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def hello(node: Node, *, key: str) -> Message:
    return {"event": "hello", "sdjob": __version__, "job": key, "node": node.number, "nodes": node.count}


def refused(hello: Message, *, node: Node, key: str) -> str | None:
    """Why whoever says this may not join; None where it may."""
    number = hello.get("node")
    if hello["event"] != "hello" or type(number) is not int:
        return "this is the address of a gang of sdjob, and that was no greeting of a node."
    if hello.get("sdjob") != __version__:
        return f"node 0 is sdjob {__version__}, and node {number} is {shown(hello.get('sdjob'))}: all need the same version."
    if hello.get("nodes") != node.count:
        return f"node 0 counts {node.count} nodes, and node {number} counts {shown(hello.get('nodes'))}."
    if not 0 < number < node.count:
        return f"there is no node {number}: beside node 0 there are 1 to {node.count - 1}."
    if hello.get("job") != key:
        return f"node {number} was given another job than node 0: the job files, or what --set says, differ."
    return None


def shown(value: Any) -> str:
    return words_of({"what": str(value)[:40]})


def named(numbers: list[int]) -> str:
    return f"node{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def words_of(message: Message) -> str:
    """For a log: nothing in it moves a terminal's cursor."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(message.get("what", ""))[:LONGEST_WORDS])
