"""`python -m stages.serve.http.server`, which is `gr2 serve`."""

import argparse
import logging
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from stages.evaluate.params import EvaluateParams
from stages.serve.http.app import ServerSettings, create_app
from stages.serve.reranker import MODEL, open_reranker
from stages.shared.core.errors import StageError
from stages.shared.core.params import load_params
from stages.shared.core.run import set_seed, set_threads, without_library_bars

KEY_VARIABLE = "GR2_API_KEY"
GRACE_S = 5  # beyond the budget of a request, when the server stops


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="gr2 serve", description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--mode", choices=("reasoning", "one-pass"), default="reasoning")
    parser.add_argument("--budget", type=float, default=ServerSettings.budget)
    parser.add_argument("--queue", type=int, default=ServerSettings.queue)
    parser.add_argument("--batch", type=int, default=ServerSettings.batch)
    options = parser.parse_args(arguments)
    try:
        serve(options)
    except StageError as error:
        sys.exit(f"gr2 serve: {error}")


def serve(options: argparse.Namespace) -> None:
    """Until SIGINT or SIGTERM, after which the requests at work are answered. The address is bound before the model is opened."""
    listener = _bound(options.host, options.port)
    os.environ["TQDM_DISABLE"] = "1"  # an engine's bars; a log is read later
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    params = load_params("evaluate", EvaluateParams)
    set_threads(params.threads)
    set_seed(params.seed)
    without_library_bars()
    settings = ServerSettings(options.budget, max(1, options.queue), max(1, options.batch), os.environ.get(KEY_VARIABLE, ""))
    with listener, open_reranker(options.model, options.mode, params.threads) as reranker:
        config = uvicorn.Config(
            create_app(reranker, settings),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.budget) + GRACE_S,
        )
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"gr2 serve: {options.model} ({options.mode}) at http://{shown}:{port}", flush=True)
        if not settings.key and not ip_address(host).is_loopback:
            print(f"gr2 serve: anyone who reaches {host} may ask; set {KEY_VARIABLE} to a key", file=sys.stderr, flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _bound(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise StageError(f"{host}:{port} cannot be listened at ({error}); choose another --port or --host") from None
    return listener


if __name__ == "__main__":
    main()
