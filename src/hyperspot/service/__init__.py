"""The inspection station: REST, pages, records, jobs, cameras and outputs around any `Predictor`; extra `serve`.

The path of an image:

    api, sources -> inspecting -> inference -> records -> events -> pages, outputs, monitoring -> review -> jobs

- `api` (REST), `lookout` (the endpoint of Amazon Lookout for Vision) and `sources` (folders, cameras) receive images.
- `inspecting` is the path itself: it checks an image, has it predicted, has it recorded, and publishes the inspection.
- `inference` predicts in worker processes with the active version of the product (`products`).
- `records` stores the image, the anomaly map and, durably, the inspection with its deliveries to the outputs.
- `events` tells the pages and `outputs` of each inspection; `outputs` sends the deliveries; `monitoring` reads the
  recorded inspections and raises alarms.
- `review` has the labels and what they say about a version; `jobs` trains, updates and compares versions.

Around it: `station` holds the parts and starts them, `app` is the web application, `serving` runs it, `access` knows
who may do what, `database` has the tables, `connection_rows` and `connections` add and change sources and outputs.
"""
