"""What is wrong with an argument of `add_exits`: by its own name in Python, as a key of its section in a recipe."""

from __future__ import annotations

from common.errors import ConfigError


class ArgumentError(ConfigError):
    """An argument does not fit; the sentence begins with its name."""

    def __init__(self, name: str, said: str) -> None:
        super().__init__(f"{name} {said}")
        self.name = name

    def as_key(self) -> ConfigError:
        """The same for whoever wrote a recipe."""
        return ConfigError(f"{'model' if self.name == 'classes' else 'exits'}.{self}")
