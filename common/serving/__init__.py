"""The tier itself: batcher, exits, upstream, doors, metrics and life cycle, written once for every role."""
