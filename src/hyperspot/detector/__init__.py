"""The detector that is trained with torch: settings, fitting, the anomaly model, its file."""
