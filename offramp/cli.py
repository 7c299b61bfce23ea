"""The command line: `offramp COMMAND`.

Exit status 0 on success, 2 on wrong use, 1 on failure; one sentence on stderr says what is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import typer

from common.errors import ConfigError, OfframpError
from offramp.commands.build import build, train
from offramp.commands.calibrate import calibrate
from offramp.commands.cuts import cuts
from offramp.commands.evaluate import evaluate
from offramp.commands.health import health
from offramp.commands.inspect import inspect
from offramp.commands.load import load
from offramp.commands.options import Version
from offramp.commands.predict import predict
from offramp.commands.serve import serve
from offramp.commands.up import up

app = typer.Typer(
    name="offramp",
    help="Serve one early-exit neural network from the device to the cloud.",
    epilog="Example: offramp up --config deploy/tiers.yaml",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

EXAMPLES: dict[Callable[..., None], str] = {
    build: "offramp build recipes/mnist-lenet.yaml --out bundles/mnist-lenet",
    train: "offramp train recipes/mnist-lenet.yaml --out weights.npz",
    calibrate: "offramp calibrate bundles/mnist-lenet --target-drop 0.002",
    evaluate: "offramp evaluate bundles/mnist-lenet --plot accuracy.png",
    cuts: "offramp cuts ./my_model.py:build --example 3x32x32",
    inspect: "offramp inspect bundles/mnist-lenet",
    serve: "offramp serve edge --config deploy/tiers.yaml",
    up: "offramp up --config deploy/tiers.yaml",
    predict: "offramp predict examples/mnist/*.png",
    load: "offramp load --rate 200 --seconds 10",
    health: "offramp health 127.0.0.1:8100",
}
for command, example in EXAMPLES.items():
    app.command(epilog=f"Example: {example}")(command)


@app.callback()
def offramp(version: Version = False) -> None:
    """Serve one early-exit neural network from the device to the cloud."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        app(args=arguments, prog_name="offramp")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    except ConfigError as error:
        print(f"offramp: {error}", file=sys.stderr)
        return 2
    except OfframpError as error:
        print(f"offramp: {error}", file=sys.stderr)
        return 1
    return 0
