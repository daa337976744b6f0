"""WHAT goes in: lesions as three-dimensional objects in HU, and the bank that holds them."""
