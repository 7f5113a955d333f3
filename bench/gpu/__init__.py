"""What bench/gpu_check.py runs on a card: checks against float64, races against PyTorch, roofs."""
