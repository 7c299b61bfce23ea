"""The version of offramp, stated once."""

VERSION = "0.1.0"
