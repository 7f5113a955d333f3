"""Numbers, tables and pictures from results and ground truth."""
