"""Into what: blocks and networks that make whole backgrounds (paper, section 2)."""
