"""Laws of the backpropagated gradient, one file per family, each with its formula, validity and source."""
