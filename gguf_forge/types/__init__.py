"""The facts of each tensor type: block layout, fields of a block, levels, and which blocks are invalid."""
