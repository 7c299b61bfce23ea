"""The device tier: the entry, where the sensor is. It answers what it is sure of without waiting for anybody."""
