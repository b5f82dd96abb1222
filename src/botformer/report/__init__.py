"""Pages to look at: of a data set, and of a finished run."""
