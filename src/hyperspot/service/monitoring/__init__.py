"""Watches the process: scores, drift, false alarms, images."""
