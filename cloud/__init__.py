"""The cloud tier: the last exit, which answers whatever reaches it."""
