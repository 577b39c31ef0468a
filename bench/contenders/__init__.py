"""Who takes turns: nets, and whatever trains them, predicts, multiplies or runs kernels, floors too."""
