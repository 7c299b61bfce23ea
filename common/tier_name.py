"""What a tier may be called, in the configuration and in answers."""

import re

TIER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
