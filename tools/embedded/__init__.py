"""Data, objectives and training of the embedded network; see tools/train_embedded.py."""
