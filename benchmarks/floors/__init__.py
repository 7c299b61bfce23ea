"""Floors: the least that the same work costs with the same libraries, without a server's duties."""
