"""The inspection station: REST, pages, records, jobs, cameras and outputs around any `Predictor`; extra `serve`.

The path of an image: `api` or `sources` -> `inference` (worker processes) -> `records` (durable) -> `events`
(pages, `outputs`, `monitoring`). `Station` holds the parts, `create_app` serves it.
"""
