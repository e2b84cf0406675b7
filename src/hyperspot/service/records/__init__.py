"""Durable records: images, inspections, retention."""
