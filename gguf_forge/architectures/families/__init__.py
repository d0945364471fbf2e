"""One file per model family: declarations only."""
