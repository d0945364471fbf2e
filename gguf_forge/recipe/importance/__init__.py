"""How much each column of a tensor matters."""
