"""Words for true and false in cells of text, in lower case."""

YES, NO = ("true", "t", "yes", "y"), ("false", "f", "no", "n")
