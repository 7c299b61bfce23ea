"""Options that ask for an operating point with a guarantee."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigError

if TYPE_CHECKING:
    from calibration.settings import GuaranteeSettings

Epsilon = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Add an operating point whose risk is certified to be at most this."),
]
Delta = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Probability that the certificate may be wrong.  [default: 0.1]"),
]
RiskName = Annotated[
    str | None,
    typer.Option(
        "--risk",
        metavar="NAME",
        help="What is certified: disagreement with the uncut network, or accuracy-gap to it.  [default: disagreement]",
    ),
]
PointName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Of that operating point.  [default: guaranteed]")
]
Source = Annotated[
    str | None,
    typer.Option("--from", metavar="NAME", help="Take it from this operating point's certificate, without any data."),
]


def wanted_guarantee(
    epsilon: float | None, delta: float | None, risk: str | None, name: str | None
) -> GuaranteeSettings | None:
    """The settings that the options ask for, None without --epsilon.

    Raises:
        ConfigError: when a value is out of range, or --epsilon is missing.
    """
    from calibration.settings import GuaranteeSettings, parse_section

    others = {"delta": delta, "risk": risk, "name": name}
    given = {key: value for key, value in others.items() if value is not None}
    if epsilon is None:
        if given:
            raise ConfigError(f"--{next(iter(given))} belongs to a guarantee. Give --epsilon with it.")
        return None
    return parse_section(GuaranteeSettings, {"epsilon": epsilon, **given}, "offramp calibrate")
