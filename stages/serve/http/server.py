"""`python -m stages.serve.http.server`, which is `gr2 serve`."""

import argparse
import logging
import os
import socket
import sys
from dataclasses import replace
from ipaddress import ip_address

import uvicorn

from stages.serve.engine.keeper import Engines
from stages.serve.engine.messages import ServedModel
from stages.serve.http.app import ServerSettings, create_app
from stages.serve.http.served_model import find_model
from stages.serve.http.server_metrics import ServerMetrics
from stages.serve.modes import add_mode_options
from stages.shared.core.errors import StageError
from stages.shared.evaluation.rankers import MODELS, PRIMARY_MODEL

KEY_VARIABLE, ADMIN_KEY_VARIABLE = "GR2_API_KEY", "GR2_ADMIN_KEY"
PATIENCE = 10  # budgets without an answer, after which an engine is taken for hung: whoever asked has long had the own order back
LONGEST_BUDGET_S = 86_400
GRACE_S = 5  # beyond the budget of a request, when the server stops


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="gr2 serve", description=__doc__)
    parser.add_argument("--model", default=MODELS[PRIMARY_MODEL].as_posix())
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    add_mode_options(parser)
    parser.add_argument("--versions", default="", help="the module that brings a version: NAME in, JSON with name, run and model out")
    parser.add_argument("--budget", type=float, default=ServerSettings.budget)
    parser.add_argument("--queue", type=int, default=ServerSettings.queue)
    parser.add_argument("--batch", type=int, default=ServerSettings.batch)
    parser.add_argument("--items", type=int, default=ServerSettings.max_items)
    options = parser.parse_args(arguments)
    try:
        serve(options)
    except StageError as error:
        sys.exit(f"gr2 serve: {error}")


def serve(options: argparse.Namespace) -> None:
    """Until SIGINT or SIGTERM, after which the requests at work are answered. The address is bound before the model is opened."""
    if not 0 < options.budget < LONGEST_BUDGET_S:
        raise StageError(f"--budget {options.budget:g}: seconds are expected, above 0 and below {LONGEST_BUDGET_S}")
    listener = _bound(options.host, options.port)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    settings = ServerSettings(
        options.budget,
        max(1, options.queue),
        max(1, options.batch),
        _key(KEY_VARIABLE),
        _key(ADMIN_KEY_VARIABLE),
        max_items=max(1, options.items),
    )
    metrics = ServerMetrics()

    def found(name: str) -> ServedModel:
        model = find_model(name, options.mode, options.one_pass_model, options.margin, options.versions)
        return replace(model, budget=settings.budget)

    engines = Engines(found, PATIENCE * settings.budget, metrics.restarts.inc)
    with listener:
        keeper = engines.open(options.model)
        config = uvicorn.Config(
            create_app(keeper, settings, engines, metrics),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(settings.budget) + GRACE_S,
        )
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        print(f"gr2 serve: {keeper.name} ({options.mode}) at http://{shown}:{port}", flush=True)
        if not settings.key and not ip_address(host).is_loopback:
            print(f"gr2 serve: anyone who reaches {host} may ask; set {KEY_VARIABLE} to a key", file=sys.stderr, flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _key(variable: str) -> str:
    """Empty where none is set. A key from a file may end with a line break, which no header can hold."""
    value = os.environ.get(variable, "")
    if value and not value.strip():
        raise StageError(f"{variable} is blank; set it to a key, or not at all")
    return value.strip()


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
