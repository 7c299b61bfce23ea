"""What every tier shares at run time."""
