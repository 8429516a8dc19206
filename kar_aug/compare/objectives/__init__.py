"""What models are trained for and judged by, one task a module."""
