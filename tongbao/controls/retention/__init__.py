"""How long raw evidence that holds people's data is kept, and that it is erased afterwards."""
