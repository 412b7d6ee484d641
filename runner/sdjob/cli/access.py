"""How a verb gets to a cluster: the same options and the same errors for all of them."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from sdjob.core.errors import UnavailableError

if TYPE_CHECKING:
    from sdjob.cluster.server import Server


def add_server_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-n", "--namespace", help="the namespace; by default the context's, as kubectl has it")
    parser.add_argument("--context", help="the context of the kubeconfig; by default the current one")


def connected(args: Namespace, *, namespace: str | None = None) -> "Server":
    """`namespace`: where the command line names none. UnavailableError where the client is not installed."""
    try:
        from sdjob.cluster.server import connect
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("sdjob"):
            raise
        raise UnavailableError(
            f"this command needs the package {error.name}, which is not installed.", next_step="pip install 'sdjob[k8s]'"
        ) from error
    return connect(context=args.context, namespace=args.namespace or namespace)
