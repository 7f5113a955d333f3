"""Few-shot RGB + 3D anomaly detection with the Crossmodal Feature Replacer (CFR)."""
