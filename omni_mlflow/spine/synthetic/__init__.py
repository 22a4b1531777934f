"""Synthetic episodes in the real on-disk format, with a world in them that can be learned."""
