"""Keep the exits that a recipe asks for, and say which of them do not pay at the chosen operating point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from calibration.datasets import Examples, divide
from calibration.points import check_points
from common.bundle import Bundle
from common.errors import ConfigError
from common.rule import Rule
from training.cost import costs
from training.network import MultiExitNetwork
from training.placement import place_greedily, worth
from training.prune import keep_exits, measure
from training.recipe import Recipe

Report = Callable[[str], None]


def keep_as_asked(
    network: MultiExitNetwork, recipe: Recipe, official: Examples, report: Report
) -> tuple[MultiExitNetwork, Recipe]:
    """Leave out the exits that do not pay on the validation split, when the recipe says `exits.keep: greedy`.

    All stay where an operating point that the recipe asks for could not be had otherwise.

    Returns:
        The network, and the recipe with thresholds of the exits that it has.
    """
    if recipe.exits is None or recipe.exits.keep == "all":
        return network, recipe
    rows = divide(official, recipe.data).validation
    criterion = recipe.calibration.criterion
    if criterion == "gate" and any(network.parts[stage].gate is None for stage in network.exits[:-1]):
        criterion = "max-probability"  # gates are fitted later, to the exits that stay
    found = measure(network, rows.inputs, rows.labels_N, criterion=criterion)
    placed = place_greedily(found, target_drop=recipe.calibration.target_drop)
    kept, settings = keep_exits(network, placed.kept), recipe.calibration.of_exits(placed.kept)
    try:
        check_points(settings.all_points(), costs(kept).leaving())
    except ConfigError as error:
        report(f"kept all exits, also those that do not pay. Without them: {error}")
        return network, recipe
    names = ", ".join(map(str, placed.kept))
    report(
        f"kept exits {names} of 0 to {len(network.exits) - 1}: {placed.mean_flops:,.0f} FLOPs per row on the "
        f"validation split, {found.costs.whole:,} without early exits"
    )
    return kept, recipe.model_copy(update={"calibration": settings})


def say_what_does_not_pay(
    network: MultiExitNetwork, root: Path, recipe: Recipe, official: Examples, report: Report
) -> None:
    """Report every early exit that costs more than it saves at the bundle's default operating point.

    Args:
        network: that the bundle was made of.
        root: of the calibrated bundle.
        recipe: says how the data are divided; the validation split is looked at.
        official: the train split.
        report: takes a line.
    """
    manifest = Bundle(root).manifest
    point = manifest.operating_points["default"]
    if len(network.exits) < 2:
        return
    rows = divide(official, recipe.data).validation
    found = measure(network, rows.inputs, rows.labels_N, rule=Rule.of(manifest, point))
    for one in worth(found, point.thresholds):
        if not one.pays:
            report(f"{one} `exits.keep: greedy` leaves such exits out.")
