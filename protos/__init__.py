"""The wire contract between tiers and its generated stubs."""
