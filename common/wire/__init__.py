"""The wire: tensors as raw bytes, their codecs, and the messages between tiers."""
