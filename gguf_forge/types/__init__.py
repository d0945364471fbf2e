"""What a tensor type is: its block layout, the fields of a block, its levels, what no reader should be given."""
