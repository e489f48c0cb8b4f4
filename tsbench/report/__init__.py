"""Tables from stored records."""
