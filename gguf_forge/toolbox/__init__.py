"""Tools for GGUF files: inspect them, verify them, edit them, report on them. One file per verb."""
