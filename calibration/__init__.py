"""The build wing without torch, on the bundle as it will be served: temperatures, thresholds, evaluation."""
