"""Parts of the pass `pack`."""
