"""Data sets: the formats they come in, the known ones, and what is wrong with rows and labels."""
