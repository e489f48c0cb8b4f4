"""Running cells and keeping their records."""
