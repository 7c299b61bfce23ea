"""The edge tier: between devices and cloud, shared by many devices; also what relays between networks."""
